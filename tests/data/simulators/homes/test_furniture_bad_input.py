import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from support.furniture import CHAIR, MATERIALS, entry, png, write_sh3f
from support.packages import write_deb

from mirage_sim.data.simulators.homes.furniture import catalogue, load_furniture, models
from mirage_sim.data.simulators.homes.furniture.prepare import prepare_furniture
from mirage_sim.paths import user_cache
from mirage_sim.settings import FurnitureSettings


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("trimesh")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return user_cache("furniture")


def assert_refused(source: Path, cache: Path, message: str) -> None:
    """Check that `source` raises one line of error and leaves the cache as it was."""
    write_sh3f(cache.parent / "good" / "Toys.sh3f")
    digest = prepare_furniture(FurnitureSettings(source=str(cache.parent / "good")))["digest"]
    before = sorted(cache.iterdir())
    with pytest.raises(ValueError, match=message) as caught:
        prepare_furniture(FurnitureSettings(source=str(source)))
    assert "\n" not in str(caught.value)
    assert sorted(cache.iterdir()) == before
    assert load_furniture().digest == digest


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"catalogue": ""}, "expected catalogues with furniture for homes, got none in 1 files"),
        ({"catalogue": entry(width="wide")}, "expected a complete entry, got number 9"),
        ({"catalogue": entry(width=None)}, "expected a complete entry, got number 9: 'width'"),
        ({"catalogue": entry(height="nan")}, "expected sizes of up to 6 m"),
        ({"catalogue": entry(depth=99_999)}, "expected sizes of up to 6 m"),
        ({"catalogue": entry(elevation=-3)}, "expected sizes of up to 6 m"),
        ({"catalogue": entry(modelRotation="1 0 0 0 1 0")}, "expected a complete entry"),
        ({"catalogue": entry(modelRotation="9 0 0 0 1 0 0 0 1")}, "expected a rotation"),
        ({"catalogue": entry(model="/../../etc/passwd")}, "expected the file '../../etc/passwd', got none"),
        ({"catalogue": entry(1) + entry(2, id="Toys#chair1")}, "expected different names, got Toys#chair1 twice"),
        ({"chair_obj": "no model at all"}, "toys/chair.obj: expected"),
        ({"chair_obj": CHAIR.replace("v 4 0 2", "v nan 0 2")}, "toys/chair.obj: expected finite positions"),
        ({"chair_obj": CHAIR.replace("v 4 0 2", "v inf 0 2")}, "toys/chair.obj: expected finite positions"),
        ({"chair_obj": CHAIR.replace("f 1 4 6 5", "f 1 4 6 999")}, "toys/chair.obj: expected an OBJ file"),
        ({"chair_obj": CHAIR.replace("f 1 4 6 5", "f 1 1 1")[:-60]}, "toys/chair.obj: expected"),
        ({"chair_mtl": MATERIALS.replace("0.2 0.4 0.6", "nan 0 0")}, "expected colours and opacities from 0 to 1"),
        (
            {"catalogue": entry(name="Door"), "chair_mtl": MATERIALS.replace("Kd", "d 0.2\nKd")},
            "expected something to show",
        ),
        ({"cloth_png": png()[:80]}, "toys/chair.obj: expected whole images"),
    ],
)
def test_bad_catalogue_is_refused(tmp_path: Path, cache: Path, changes: dict, message: str) -> None:
    write_sh3f(tmp_path / "source" / "Toys.sh3f", **changes)
    assert_refused(tmp_path / "source", cache, message)


def test_too_many_faces_are_refused(tmp_path: Path, cache: Path) -> None:
    corners = np.random.default_rng(0).integers(1, 7, (models.MAX_MODEL_FACES + 1, 3))
    faces = "".join(f"f {a} {b} {c}\n" for a, b, c in corners.tolist())
    write_sh3f(tmp_path / "source" / "Toys.sh3f", chair_obj=CHAIR + faces)
    assert_refused(tmp_path / "source", cache, "expected at most 300000 faces, got 3000")


def test_zip_bomb_is_refused(tmp_path: Path, cache: Path) -> None:
    write_sh3f(tmp_path / "source" / "Toys.sh3f", bomb=b"\0" * (8 << 20))
    assert_refused(tmp_path / "source", cache, "Toys.sh3f: expected files of at most .* got 'toys/bomb'")


def test_too_many_files_are_refused(tmp_path: Path, cache: Path) -> None:
    path = write_sh3f(tmp_path / "source" / "Toys.sh3f")
    with zipfile.ZipFile(path, "a") as archive:
        for number in range(catalogue.MAX_ENTRIES):
            archive.writestr(str(number), b"")
    assert_refused(tmp_path / "source", cache, "Toys.sh3f: expected at most 20000 files")


def test_file_longer_than_its_header_is_refused(tmp_path: Path, cache: Path) -> None:
    path = write_sh3f(tmp_path / "source" / "Toys.sh3f")
    data = path.read_bytes()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        size = archive.getinfo("toys/chair.obj").file_size.to_bytes(4, "little")
    path.write_bytes(data.replace(size, (7).to_bytes(4, "little")))
    assert_refused(tmp_path / "source", cache, "'toys/chair.obj' is damaged")


def test_damaged_texture_is_refused(tmp_path: Path, cache: Path) -> None:
    path = write_sh3f(tmp_path / "source" / "Toys.sh3f")
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("toys/cloth.png").header_offset + 60
    data = bytearray(path.read_bytes())
    data[start : start + 20] = bytes(20)
    path.write_bytes(data)
    assert_refused(tmp_path / "source", cache, "'toys/cloth.png' is damaged")


@pytest.mark.parametrize("name", ["empty", "nowhere"])
def test_folder_without_catalogues_is_refused(tmp_path: Path, cache: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    assert_refused(tmp_path / name, cache, f"{name}: expected a folder or a .deb file that holds .sh3f files, got none")


def test_catalogue_that_is_no_zip_archive_is_refused(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "Toys.sh3f").write_bytes(b"text")
    assert_refused(tmp_path / "source", cache, "Toys.sh3f: expected a zip archive")


def test_damaged_packages_are_refused(tmp_path: Path, cache: Path) -> None:
    package = tmp_path / "toys.deb"
    package.write_bytes(b"text")
    assert_refused(package, cache, "toys.deb: expected a whole Debian package of at most .* bytes, got no ar archive")
    package.write_bytes(b"!<arch>\n" + b" " * 40)
    assert_refused(package, cache, "toys.deb: expected a whole Debian package")
    write_deb(package, {"./readme": b"nothing"})
    assert_refused(package, cache, "holds .sh3f files, got none")
    write_deb(package, {"./Toys.sh3f": bytes(range(256)) * 999})
    package.write_bytes(package.read_bytes()[:-300])
    assert_refused(package, cache, "toys.deb: expected a whole Debian package")


def test_missing_source_and_apt_raise(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(OSError, match="source: expected .*sweethome3d-furniture_.*because apt-get is not"):
        prepare_furniture(FurnitureSettings(source=None))
    assert not list(cache.iterdir())
