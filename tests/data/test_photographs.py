import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file
from support.packages import write_deb

from mirage_sim.data import photographs
from mirage_sim.data.photographs import Photograph, crops, known_photographs, prepare_photographs
from mirage_sim.data.samples import IN_OPENCV_DOC, IN_SCIKIT_IMAGE
from mirage_sim.settings import PhotographsSettings


def jpeg(seed: int, size: tuple[int, int] = (600, 400)) -> bytes:
    """Make a JPEG file of random blocks."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1] // 10, size[0] // 10, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels.repeat(10, 0).repeat(10, 1)).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def entry(name: str, content: bytes, package: str = "wallpapers") -> Photograph:
    digest = hashlib.sha256(content).hexdigest()
    return Photograph(name, "A. Uthor", "CC0-1.0", package, f"usr/share/{name}.jpg", len(content), digest)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Replace the known photographs by two."""
    contents = [jpeg(0), jpeg(1, (400, 500))]
    entries = entry("first", contents[0]), entry("second", contents[1], "backgrounds")
    monkeypatch.setattr(photographs, "known_photographs", lambda: entries)
    return contents


def settings(source: Path, output: Path, images: int = 5) -> PhotographsSettings:
    return PhotographsSettings(source=str(source), output=str(output), images=images)


def test_crops_of_packages_and_files_are_in_one_file(known: list[bytes], tmp_path: Path):
    source, output = tmp_path / "source", tmp_path / "a" / "output"
    (source / "deep").mkdir(parents=True)
    write_deb(source / "wallpapers.deb", {"./usr/share/other.jpg": jpeg(2), "./usr/share/first.jpg": known[0]})
    (source / "deep" / "renamed.bin").write_bytes(known[1])
    assert prepare_photographs(settings(source, output)) == {"photographs": 2, "images": 5, "output": str(output)}
    tensors = load_file(output / "photographs.safetensors")
    assert tensors["images"].shape == (5, 96, 128, 3) and tensors["images"].dtype == np.uint8
    assert tensors["photograph"].tolist() == [0, 1, 0, 1, 0]
    np.testing.assert_array_equal(tensors["images"][1::2], crops(photographs.decode(known[1]), 2, 1))
    description = json.loads((output / "photographs.json").read_text())
    assert [each["crops"] for each in description["photographs"]] == [3, 2]
    assert description["photographs"][0]["author"] == "A. Uthor"
    with safe_open(output / "photographs.safetensors", framework="np") as file:
        assert json.loads(file.metadata()["description"]) == description
    assert sorted(path.name for path in output.iterdir()) == ["photographs.json", "photographs.safetensors"]


def test_same_photographs_give_same_file(known: list[bytes], tmp_path: Path):
    for i, content in enumerate(known):
        (tmp_path / f"{i}.jpg").write_bytes(content)
    contents = []
    for name in ("a", "b"):
        prepare_photographs(settings(tmp_path, tmp_path / name))
        contents.append((tmp_path / name / "photographs.safetensors").read_bytes())
    assert contents[0] == contents[1]


def test_missing_photograph_raises_and_writes_nothing(known: list[bytes], tmp_path: Path):
    output = tmp_path / "output"
    (tmp_path / "first.jpg").write_bytes(known[0])
    (tmp_path / "second.jpg").write_bytes(known[1][:-1] + b"x")  # another file of that name and size
    with pytest.raises(ValueError, match=r"1 are missing, such as usr/share/second.jpg.*apt-get download backgrounds"):
        prepare_photographs(settings(tmp_path, output))
    assert not output.exists()


def test_failed_write_keeps_old_files(known: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for i, content in enumerate(known):
        (tmp_path / f"{i}.jpg").write_bytes(content)
    output = tmp_path / "output"
    prepare_photographs(settings(tmp_path, output))
    before = {path.name: path.read_bytes() for path in output.iterdir()}

    def full(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(photographs, "save_file", full)
    with pytest.raises(OSError, match="no space"):
        prepare_photographs(settings(tmp_path, output, images=3))
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before


def test_links_in_a_folder_are_not_followed(known: list[bytes], tmp_path: Path):
    source, elsewhere = tmp_path / "source", tmp_path / "elsewhere"
    source.mkdir()
    elsewhere.write_bytes(known[0])
    (source / "first.jpg").symlink_to(elsewhere)
    assert photographs.find_photographs(source, photographs.known_photographs()) == {}


def test_crops_are_area_averages_within_the_photograph():
    ramp = np.zeros((400, 600, 3), np.uint8)
    ramp[..., 0] = (np.arange(600) * 255 / 599).round()
    ramp[..., 1] = (np.arange(400) * 255 / 399).round()[:, None]
    noise = np.random.default_rng(0).integers(0, 256, (400, 600), dtype=np.uint8)
    ramp[..., 2] = noise
    made = crops(Image.fromarray(ramp), 40, 0).astype(float)
    scale = np.diff(made[:, :, :, 0].mean(1)).mean(1) * 599 / 255  # pixels of the photograph to one
    assert 1.95 < scale.min() < 2.3 and 3.8 < scale.max() < 400 / 96 + 0.05
    np.testing.assert_allclose(np.diff(made[:, :, :, 1].mean(2)).mean(1) * 399 / 255, scale, rtol=0.03)
    # independent noise, averaged over scale^2 pixels
    np.testing.assert_allclose(made[..., 2].std((1, 2)) * scale, noise.std(), rtol=0.15)


def test_crops_prefer_detail():
    photograph = np.zeros((400, 2000, 3), np.uint8)
    photograph[:, :500] = np.random.default_rng(0).integers(0, 256, (400, 500, 1), dtype=np.uint8)
    detailed = crops(Image.fromarray(photograph), 50, 0).std((1, 2, 3)) > 5
    assert 0.6 < detailed.mean() < 1.0  # a quarter or so by chance


def test_small_photograph_raises():
    with pytest.raises(ValueError, match="photograph: expected 2.0 times"):
        crops(Image.new("RGB", (255, 300)), 1, 0)


@pytest.mark.parametrize("images", [0, -1, True, 2.0, None])
def test_invalid_number_of_images_raises(images: object, tmp_path: Path):
    with pytest.raises(ValueError, match="images: expected a positive integer"):
        PhotographsSettings(source=str(tmp_path), output=str(tmp_path), images=images)


def test_missing_folder_raises(tmp_path: Path):
    with pytest.raises(ValueError, match="source: expected a folder"):
        prepare_photographs(settings(tmp_path / "none", tmp_path))


def test_known_photographs_are_free_and_never_evaluated():
    known = known_photographs()
    assert len(known) == len({each.name for each in known}) == len({each.sha256 for each in known}) == 36
    licences = {"CC0-1.0", "CC-BY-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0", "GPL-2.0-or-later", "LGPL-3.0"}
    assert {each.licence for each in known} == licences and all(each.author for each in known)
    evaluated = IN_SCIKIT_IMAGE | IN_OPENCV_DOC
    assert not {each.sha256 for each in known} & set(evaluated.values())
    assert not {Path(each.path).name for each in known} & set(evaluated)


def test_evaluated_image_is_refused(tmp_path: Path):
    evaluated = Photograph("home", "", "CC0-1.0", "opencv-doc", "home.jpg", 32197, IN_OPENCV_DOC["home.jpg"])
    with pytest.raises(ValueError, match="no image that is evaluated"):
        photographs.find_photographs(tmp_path, [evaluated])
