from pathlib import Path

import numpy as np
import pytest
from support.furniture import sphere

from mirage_sim.data.simulators.homes.furniture import Piece, load_furniture, procedural_pieces
from mirage_sim.data.simulators.homes.furniture.cache import FILE
from mirage_sim.data.simulators.homes.furniture.categories import CATEGORIES
from mirage_sim.data.simulators.homes.furniture.models import Material, Model, thin
from mirage_sim.data.simulators.homes.scene import face_normals
from mirage_sim.paths import user_cache

CLOTH = Material((1.0, 1.0, 1.0), 1.0, np.zeros((64, 64, 4), np.uint8))


def grid(n: int, height: np.ndarray | None = None) -> Model:
    """A square of ``2 n²`` triangles; left and right half of different materials, textured from above."""
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(n + 1.0), np.arange(n + 1.0), indexing="ij"))
    positions = np.stack([x, y, np.zeros_like(x) if height is None else height], 1)
    start = (np.arange(n)[:, None] * (n + 1) + np.arange(n)).ravel()
    faces = np.concatenate(
        [np.stack([start, start + n + 1, start + n + 2], 1), np.stack([start, start + n + 2, start + 1], 1)]
    )
    material = (positions[faces, 0].mean(1) > n / 2).astype(np.int64)
    uv = positions[faces][..., :2] / n
    return Model(positions, faces, np.zeros((len(faces), 3, 3)), uv, material, (CLOTH, CLOTH))


def test_thinned_sphere_stays_a_sphere() -> None:
    positions, faces = sphere(60)
    model = Model(
        positions,
        faces,
        np.zeros((len(faces), 3, 3)),
        np.zeros((len(faces), 3, 2)),
        np.zeros(len(faces), int),
        (CLOTH,),
    )
    thinned = thin(model, 800)
    assert len(faces) > 14_000
    assert 700 < len(thinned.faces) <= 800
    centres = thinned.positions[thinned.faces].mean(1)
    assert np.linalg.norm(centres, axis=1).min() > 0.97
    aligned = (thinned.normals * thinned.positions[thinned.faces]).sum(-1)
    assert np.quantile(aligned, 0.01) > 0.99
    area = np.linalg.norm(face_normals(thinned.positions, thinned.faces), axis=1).sum() / 2
    assert area == pytest.approx(4 * np.pi, rel=0.02)


def test_thinned_plane_keeps_border_materials_and_texture() -> None:
    thinned = thin(grid(40), 40)
    assert len(thinned.faces) <= 40
    areas = np.linalg.norm(face_normals(thinned.positions, thinned.faces), axis=1) / 2
    np.testing.assert_allclose(np.bincount(thinned.material, areas), [800, 800], rtol=1e-6)
    np.testing.assert_allclose(thinned.uv, thinned.positions[thinned.faces][..., :2] / 40, atol=1e-6)


def test_textures_do_not_cross_seams_when_thinned() -> None:
    model = grid(40)
    shifted = np.where((model.material == 1)[:, None, None], model.uv + 5, model.uv)
    thinned = thin(Model(model.positions, model.faces, model.normals, shifted, model.material, model.materials), 60)
    wanted = thinned.positions[thinned.faces][..., :2] / 40 + 5 * thinned.material[:, None, None]
    np.testing.assert_allclose(thinned.uv, wanted, atol=1e-6)


def test_thinning_keeps_a_ridge() -> None:
    x = np.repeat(np.arange(41.0), 41)
    thinned = thin(grid(40, height=10 - np.abs(x - 20) / 2), 60)
    at = thinned.positions[np.unique(thinned.faces)]
    np.testing.assert_allclose(at[:, 2], 10 - np.abs(at[:, 0] - 20) / 2, atol=1e-9)
    assert at[:, 2].max() == 10


def test_small_model_is_not_thinned() -> None:
    model = grid(5)
    assert thin(model, 50) is model


def assert_valid(piece: Piece, tolerance: float) -> None:
    """Check what the documentation of pieces and meshes says."""
    mesh, (width, height, depth) = piece.mesh, piece.size
    assert piece.category in CATEGORIES
    assert piece.credit
    assert 0 < len(mesh.faces) <= 3500
    assert (mesh.faces >= 0).all()
    assert mesh.faces.max() < len(mesh.positions)
    assert (mesh.layer[mesh.faces] == mesh.layer[mesh.faces[:, :1]]).all()
    assert 0 <= mesh.layer.min() <= mesh.layer.max() < len(piece.textures)
    assert (piece.textures[0] == 255).all()
    assert np.isfinite(mesh.uv).all()
    np.testing.assert_allclose(np.linalg.norm(mesh.normals, axis=1), 1, atol=1e-4)
    low, high = mesh.positions.min(0), mesh.positions.max(0)
    assert (low >= np.array([-width / 2, 0, -depth / 2]) - tolerance).all()
    assert (high <= np.array([width / 2, height, depth / 2]) + tolerance).all()


def back_is_behind(piece: Piece) -> bool:
    """Return whether the parts above the seat are at -z."""
    top = piece.mesh.positions[piece.mesh.positions[:, 1] > 0.8 * piece.size[1]]
    return bool(top[:, 2].mean() < -0.05 * piece.size[2])


def test_procedural_pieces_are_valid() -> None:
    pieces = procedural_pieces()
    for piece in pieces:
        assert_valid(piece, 1e-6)
        corners, normals = piece.mesh.positions[piece.mesh.faces], piece.mesh.normals[piece.mesh.faces]
        out = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        assert ((out * normals.mean(1)).sum(1) > 0).all(), piece.name  # counter-clockwise seen from outside
        np.testing.assert_allclose(np.ptp(piece.mesh.positions, axis=0), piece.size, atol=1e-6)


def test_procedural_pieces_cover_all_rooms() -> None:
    pieces = procedural_pieces()
    assert len({piece.name for piece in pieces}) == len(pieces)
    assert [piece.index for piece in pieces] == list(range(len(pieces)))
    assert {"sofa", "bed", "chair", "kitchen_base", "toilet", "door", "window", "picture"} <= {
        piece.category for piece in pieces
    }
    assert sum(piece.held_out for piece in pieces) == len(pieces) // 10
    backs = [piece for piece in pieces if piece.category in ("sofa", "armchair", "chair", "bed", "office_chair")]
    assert all(back_is_behind(piece) for piece in backs)


def test_procedural_pieces_are_the_same_each_time() -> None:
    for first, second in zip(procedural_pieces(), procedural_pieces(), strict=True):
        np.testing.assert_array_equal(first.mesh.positions, second.mesh.positions)
        np.testing.assert_array_equal(first.textures, second.textures)


def test_prepared_furniture_is_valid() -> None:
    path: Path = user_cache("furniture") / FILE
    if not path.is_file():
        pytest.skip("`mirage prepare furniture` was not run on this machine")
    pieces = load_furniture().pieces
    assert path.stat().st_size <= 18_000_000
    assert len({piece.name for piece in pieces}) == len(pieces) > 300
    for piece in pieces:
        assert_valid(piece, 1e-3)
    seats = [piece for piece in pieces if piece.category in ("sofa", "chair")]
    assert np.mean([back_is_behind(piece) for piece in seats]) > 0.9
