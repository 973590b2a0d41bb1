import hashlib
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file

from mirage_sim.data import photographs
from mirage_sim.data.photographs import Photograph, crops, files_of_package, known_photographs, prepare_photographs
from mirage_sim.data.samples import IN_OPENCV_DOC, IN_SCIKIT_IMAGE
from mirage_sim.settings import PhotographsSettings


def jpeg(seed: int, size: tuple[int, int] = (600, 400)) -> bytes:
    """A photograph: noise of large and small blocks."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1] // 10, size[0] // 10, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels.repeat(10, 0).repeat(10, 1)).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def entry(name: str, content: bytes, package: str = "wallpapers") -> Photograph:
    digest = hashlib.sha256(content).hexdigest()
    return Photograph(name, "A. Uthor", "CC0-1.0", package, f"usr/share/{name}.jpg", len(content), digest)


def write_package(path: Path, files: dict[str, bytes], others: list[tarfile.TarInfo] | None = None) -> Path:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as archive:
        for member in others or []:
            archive.addfile(member)
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    with path.open("wb") as file:
        file.write(b"!<arch>\n")
        members = [("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), ("data.tar.xz", data.getvalue())]
        for name, content in members:
            file.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode())
            file.write(content + b"\n" * (len(content) % 2))
    return path


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Two photographs that may be learned from."""
    contents = [jpeg(0), jpeg(1, (400, 500))]
    entries = entry("first", contents[0]), entry("second", contents[1], "backgrounds")
    monkeypatch.setattr(photographs, "known_photographs", lambda: entries)
    return contents


def settings(source: Path, output: Path, images: int = 5) -> PhotographsSettings:
    return PhotographsSettings(source=str(source), output=str(output), images=images)


def test_crops_of_packages_and_files_fill_one_file(known: list[bytes], tmp_path: Path):
    source, output = tmp_path / "source", tmp_path / "a" / "output"
    (source / "deep").mkdir(parents=True)
    write_package(source / "wallpapers.deb", {"./usr/share/other.jpg": jpeg(2), "./usr/share/first.jpg": known[0]})
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


def test_the_same_photographs_give_the_same_file(known: list[bytes], tmp_path: Path):
    for i, content in enumerate(known):
        (tmp_path / f"{i}.jpg").write_bytes(content)
    contents = []
    for name in ("a", "b"):
        prepare_photographs(settings(tmp_path, tmp_path / name))
        contents.append((tmp_path / name / "photographs.safetensors").read_bytes())
    assert contents[0] == contents[1]


def test_missing_photographs_are_named_and_nothing_is_written(known: list[bytes], tmp_path: Path):
    output = tmp_path / "output"
    (tmp_path / "first.jpg").write_bytes(known[0])
    (tmp_path / "second.jpg").write_bytes(known[1][:-1] + b"x")  # another file of that name and size
    with pytest.raises(ValueError, match=r"1 are missing, such as usr/share/second.jpg.*apt-get download backgrounds"):
        prepare_photographs(settings(tmp_path, output))
    assert not output.exists()


def test_a_failure_leaves_the_old_files(known: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
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


def test_nothing_of_a_package_reaches_the_disk(tmp_path: Path):
    link, outside = tarfile.TarInfo("./link.jpg"), tarfile.TarInfo("./device")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    outside.type = tarfile.CHRTYPE
    content = jpeg(0)
    package = write_package(tmp_path / "evil.deb", {"../../evil.jpg": content, "/evil.jpg": content}, [link, outside])
    before = sorted(tmp_path.parent.rglob("*"))
    assert list(files_of_package(package, {len(content), 0})) == [content, content]
    assert sorted(tmp_path.parent.rglob("*")) == before and not Path("/evil.jpg").exists()


def test_links_in_a_folder_are_not_followed(known: list[bytes], tmp_path: Path):
    source, elsewhere = tmp_path / "source", tmp_path / "elsewhere"
    source.mkdir()
    elsewhere.write_bytes(known[0])
    (source / "first.jpg").symlink_to(elsewhere)
    assert photographs.find_photographs(source, photographs.known_photographs()) == {}


def test_a_package_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    package = write_package(tmp_path / "bomb.deb", {"zeros": bytes(1_000_000), "more": bytes(1_000_000)})
    assert package.stat().st_size < 10_000
    monkeypatch.setattr(photographs, "UNPACKED", 1_500_000)
    with pytest.raises(ValueError, match="bomb.deb: expected .* of at most 1500000 bytes: it unpacks to more"):
        list(files_of_package(package, {5}))


@pytest.mark.parametrize("kept", [0, 30, 130, 300, -200])
def test_a_damaged_package_is_refused(kept: int, tmp_path: Path):
    content = np.random.default_rng(0).bytes(3000)
    package = write_package(tmp_path / "damaged.deb", {"a": content})
    package.write_bytes(package.read_bytes()[:kept])
    with pytest.raises(ValueError, match="damaged.deb: expected a (whole )?Debian package"):
        list(files_of_package(package, {3000}))


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


def test_detail_is_preferred():
    photograph = np.zeros((400, 2000, 3), np.uint8)
    photograph[:, :500] = np.random.default_rng(0).integers(0, 256, (400, 500, 1), dtype=np.uint8)
    detailed = crops(Image.fromarray(photograph), 50, 0).std((1, 2, 3)) > 5
    assert 0.6 < detailed.mean() < 1.0  # a quarter or so by chance


def test_a_small_photograph_is_refused():
    with pytest.raises(ValueError, match="photograph: expected 2.0 times"):
        crops(Image.new("RGB", (255, 300)), 1, 0)


@pytest.mark.parametrize("images", [0, -1, True, 2.0, None])
def test_unusable_numbers_are_refused(images: object, tmp_path: Path):
    with pytest.raises(ValueError, match="images: expected a positive integer"):
        PhotographsSettings(source=str(tmp_path), output=str(tmp_path), images=images)


def test_a_missing_folder_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="source: expected a folder"):
        prepare_photographs(settings(tmp_path / "none", tmp_path))


def test_what_may_be_learned_from_is_free_and_never_evaluated():
    known = known_photographs()
    assert len(known) == len({each.name for each in known}) == len({each.sha256 for each in known}) == 36
    licences = {"CC0-1.0", "CC-BY-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0", "GPL-2.0-or-later", "LGPL-3.0"}
    assert {each.licence for each in known} == licences and all(each.author for each in known)
    evaluated = IN_SCIKIT_IMAGE | IN_OPENCV_DOC
    assert not {each.sha256 for each in known} & set(evaluated.values())
    assert not {Path(each.path).name for each in known} & set(evaluated)


def test_an_evaluated_image_is_never_taken(tmp_path: Path):
    evaluated = Photograph("home", "", "CC0-1.0", "opencv-doc", "home.jpg", 32197, IN_OPENCV_DOC["home.jpg"])
    with pytest.raises(ValueError, match="no image that is evaluated"):
        photographs.find_photographs(tmp_path, [evaluated])
