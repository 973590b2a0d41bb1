import json
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from support.furniture import MATERIALS, entry, write_sh3f
from support.packages import write_deb

from mirage_sim.cli import main
from mirage_sim.data.simulators.homes.furniture import load_furniture, procedural_pieces
from mirage_sim.data.simulators.homes.furniture.cache import FILE, UNIT, _digest, save_pieces
from mirage_sim.data.simulators.homes.furniture.categories import CATEGORIES, category_of
from mirage_sim.data.simulators.homes.furniture.prepare import prepare_furniture
from mirage_sim.paths import user_cache
from mirage_sim.settings import FurnitureSettings


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return user_cache("furniture")


def prepared(tmp_path: Path) -> None:
    pytest.importorskip("trimesh")
    write_sh3f(tmp_path / "source" / "deep" / "Toys.sh3f")
    prepare_furniture(FurnitureSettings(source=str(tmp_path / "source")))


def test_piece_is_rotated_scaled_and_centred(tmp_path: Path) -> None:
    prepared(tmp_path)
    (chair,) = load_furniture().pieces
    assert (chair.name, chair.index, chair.category) == ("Toys#chair9", 9, "chair")
    assert (chair.size, chair.elevation, chair.credit) == ((0.5, 0.9, 0.6), 0.1, "Ann, CC0")
    assert chair.held_out
    low, high = chair.mesh.positions.min(0), chair.mesh.positions.max(0)
    np.testing.assert_allclose(low, [-0.25, 0, -0.3], atol=1 / UNIT)
    np.testing.assert_allclose(high, [0.25, 0.9, 0.3], atol=1 / UNIT)
    back = chair.mesh.positions[chair.mesh.positions[:, 1] > 0.5]
    np.testing.assert_allclose(back[:, 2], -0.3, atol=1 / UNIT)


def test_material_becomes_colour_and_texture(tmp_path: Path) -> None:
    prepared(tmp_path)
    (chair,) = load_furniture().pieces
    mesh = chair.mesh
    assert chair.textures.shape == (2, 64, 64, 4)
    assert (chair.textures[0] == 255).all()
    assert (chair.textures[1] == [200, 100, 50, 255]).all()
    assert {tuple(colour) for colour in mesh.colour[mesh.layer == 0]} == {(51, 102, 153)}
    assert {tuple(colour) for colour in mesh.colour[mesh.layer == 1]} == {(255, 255, 255)}  # an exporter's default grey
    seat = mesh.positions[mesh.layer == 1]
    np.testing.assert_allclose(mesh.uv[mesh.layer == 1], (seat[:, [2, 0]] + [0.3, 0.25]) / [0.6, 0.5], atol=2e-3)
    np.testing.assert_allclose(np.abs(mesh.normals[mesh.layer == 1]), np.tile([0, 1, 0], (len(seat), 1)), atol=1e-6)


def test_coloured_texture_keeps_its_colour(tmp_path: Path) -> None:
    pytest.importorskip("trimesh")
    write_sh3f(tmp_path / "Toys.sh3f", chair_mtl=MATERIALS.replace("0.64 0.64 0.64", "1 0.2 0.2"))
    prepare_furniture(FurnitureSettings(source=str(tmp_path)))
    mesh = load_furniture().pieces[0].mesh
    assert {tuple(colour) for colour in mesh.colour[mesh.layer == 1]} == {(255, 51, 51)}


def test_package_and_folder_give_the_same_bytes(tmp_path: Path, cache: Path) -> None:
    prepared(tmp_path)
    first = (cache / FILE).read_bytes()
    catalogue = (tmp_path / "source" / "deep" / "Toys.sh3f").read_bytes()
    package = write_deb(tmp_path / "toys.deb", {"./usr/share/Toys.sh3f": catalogue, "./usr/share/doc": b"text"})
    assert prepare_furniture(FurnitureSettings(source=str(package)))["digest"] == load_furniture().digest
    assert (cache / FILE).read_bytes() == first
    assert [path.name for path in cache.iterdir()] == [FILE]


def test_package_writes_nothing_elsewhere(tmp_path: Path, cache: Path) -> None:
    pytest.importorskip("trimesh")
    catalogue = write_sh3f(tmp_path / "made" / "Toys.sh3f").read_bytes()
    link = tarfile.TarInfo("link.sh3f")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    package = write_deb(tmp_path / "toys.deb", {"../../../evil.sh3f": catalogue, "/evil2": b"x"}, [link])
    prepare_furniture(FurnitureSettings(source=str(package)))
    assert not list(tmp_path.rglob("evil*"))
    assert [path.name for path in cache.iterdir()] == [FILE]


def test_command_prints_pieces_bytes_and_digest(tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("trimesh")
    write_sh3f(tmp_path / "Toys.sh3f")
    assert main(["prepare", "furniture", f"source={tmp_path}", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["pieces"], printed["bytes"]) == (1, (cache / FILE).stat().st_size)
    assert printed["digest"] == load_furniture().digest


def test_pieces_without_category_are_left_out(tmp_path: Path) -> None:
    pytest.importorskip("trimesh")
    tree = entry(3, id="Toys#tree", name="Palm tree", height=1200, model="/toys/none.obj")
    write_sh3f(tmp_path / "Toys.sh3f", entry(1) + tree + entry(2, name="Sofa"))
    prepare_furniture(FurnitureSettings(source=str(tmp_path)))
    assert [piece.category for piece in load_furniture().pieces] == ["chair", "sofa"]


def test_category_comes_from_name_or_piece() -> None:
    assert category_of("Scopia#bed1", "Bed") == "bed"
    assert category_of("Scopia#any", "Winchester sofa") == "sofa"
    assert category_of("Scopia#any", "Palm tree") == category_of("Scopia#any", "") == ""
    assert category_of("Scopia#living_lamp", "Lamp") == "floor_lamp"
    assert category_of("Scopia#bamboo", "Bamboo") == ""


def damaged(folder: Path, how: str) -> None:
    path = folder / FILE
    data = bytearray(path.read_bytes())
    if how == "truncated":
        data = data[: len(data) // 2]
    elif how == "a bit":
        data[-3] ^= 1
    elif how == "foreign":
        data = bytearray(b"PK foreign")
    if how in ("truncated", "a bit", "foreign"):
        path.write_bytes(data)
        return
    arrays = load_file(path)
    with safe_open(path, framework="numpy") as file:
        header = json.loads(file.metadata()["furniture"])
    if how == "version":
        header["version"] = 0
    elif how == "dtype":
        arrays["faces"] = arrays["faces"].astype(np.int64)
    elif how == "faces":
        arrays["faces"][:] = 60_000
    elif how == "layer":
        arrays["layer"][:] = 200
    elif how == "textures":
        arrays["layers"][:] = 9
    elif how == "lengths":
        header["pieces"][0]["lengths"][0] += 1
    elif how == "size":
        header["pieces"][0]["size"][0] = float("nan")
    elif how == "category":
        header["pieces"][0]["category"] = "ghost"
    elif how == "no array":
        del arrays["uv"]
    if "uv" in arrays:
        header["digest"] = _digest(header["pieces"], arrays)  # so that only the damage itself is found
    save_file(arrays, path, metadata={"furniture": json.dumps(header)})


@pytest.mark.parametrize(
    "how",
    [
        "truncated",
        "a bit",
        "foreign",
        "version",
        "dtype",
        "faces",
        "layer",
        "textures",
        "lengths",
        "size",
        "category",
        "no array",
    ],
)
def test_damaged_cache_raises_one_line(tmp_path: Path, cache: Path, how: str) -> None:
    prepared(tmp_path)
    damaged(cache, how)
    with pytest.raises(ValueError, match=rf"{FILE}: expected furniture.*`mirage prepare furniture`"):
        load_furniture()


def test_missing_cache_names_the_command(cache: Path) -> None:
    with pytest.raises(ValueError, match=r"expected prepared furniture, got no such file .*`mirage prepare furniture`"):
        load_furniture()


def test_saved_pieces_are_loaded_again(tmp_path: Path) -> None:
    pieces = procedural_pieces()[:20]
    digest = save_pieces(pieces, tmp_path / "there")
    furniture = load_furniture(tmp_path / "there")
    assert furniture.digest == digest
    assert re.fullmatch(r"[0-9a-f]{64}", digest)
    for piece, reference in zip(pieces, furniture.pieces, strict=True):
        assert (piece.name, piece.index, piece.category, piece.credit) == (
            reference.name,
            reference.index,
            reference.category,
            reference.credit,
        )
        np.testing.assert_allclose(reference.mesh.positions, piece.mesh.positions, atol=0.51 / UNIT)
        np.testing.assert_allclose(reference.mesh.normals, piece.mesh.normals, atol=0.01)
        np.testing.assert_allclose(reference.mesh.uv, piece.mesh.uv, rtol=1e-3, atol=1e-3)
        for name in ("faces", "layer", "colour"):
            np.testing.assert_array_equal(getattr(reference.mesh, name), getattr(piece.mesh, name))
            assert getattr(reference.mesh, name).dtype == getattr(piece.mesh, name).dtype
        np.testing.assert_array_equal(reference.textures, piece.textures)
    assert set(CATEGORIES) >= {piece.category for piece in furniture.pieces}
