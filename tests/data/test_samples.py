import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from mirage_sim.data import samples
from mirage_sim.data.samples import IN_OPENCV_DOC, PAIRS, PHOTOGRAPHS, StereoPair, motorcycle, sample_path
from mirage_sim.geometry import project, unproject


def toy_pair(offset: float = 0.0) -> StereoPair:
    """Make a wall of disparity 4 behind a square of disparity 10, with random texture."""
    rng = np.random.default_rng(0)
    disparity = np.full((60, 100), 4.0, np.float32)
    disparity[20:40, 40:60] = 10.0
    left = rng.integers(0, 256, (60, 100, 3), dtype=np.uint8)
    right = np.zeros_like(left)
    for d in (4, 10):  # far surface first
        rows, columns = np.nonzero(disparity == d)
        inside = columns >= d
        right[rows[inside], columns[inside] - d] = left[rows[inside], columns[inside]]
    return StereoPair(left, right, disparity, 50.0, (48.0, 31.0), offset, 0.2)


@pytest.mark.parametrize("offset", [0.0, 7.0])
def test_depth_and_cameras_agree_with_disparity(offset: float):
    pair = toy_pair(offset)
    left, right = pair.cameras
    assert pair.left_depth[0, 0] == pytest.approx(0.2 * 50 / (4 + offset))
    u, v, _ = project(unproject(torch.from_numpy(pair.left_depth), left).reshape(-1, 3), right)
    columns = torch.arange(100) + 0.5 - torch.from_numpy(pair.disparity)
    torch.testing.assert_close(u.reshape(60, 100), columns, atol=1e-3, rtol=0)
    torch.testing.assert_close(v.reshape(60, 100)[:, 0], torch.arange(60) + 0.5, atol=1e-3, rtol=0)


def test_right_depth_shows_the_nearest_surface():
    depth = toy_pair().right_depth
    near, far = 0.2 * 50 / 10, 0.2 * 50 / 4
    assert depth[30, 30:50] == pytest.approx(near)  # the square, ten columns to the left
    assert depth[30, 20:29] == pytest.approx(far)
    assert (depth[30, 51:56] == 0).all()  # hidden from the left camera
    assert (depth[:, 97:] == 0).all()  # beyond its border
    assert depth[5, :96] == pytest.approx(far)


def test_unknown_disparity_stays_unknown():
    pair = toy_pair()
    pair.disparity[5, 50:60] = 0.0
    assert (pair.left_depth[5, 50:60] == 0).all()
    assert (pair.right_depth[5, 47:56] == 0).all()


def test_file_with_other_content_raises(tmp_path: Path):
    (tmp_path / "home.jpg").write_bytes(b"another photograph")
    with pytest.raises(ValueError, match="home.jpg: expected the file with SHA-256 23b8"):
        sample_path("home.jpg", tmp_path)
    with pytest.raises(FileNotFoundError, match="building.jpg: expected a file of Debian's opencv-doc"):
        sample_path("building.jpg", tmp_path)


def test_file_with_known_hash_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "home.jpg").write_bytes(b"content")
    monkeypatch.setitem(IN_OPENCV_DOC, "home.jpg", hashlib.sha256(b"content").hexdigest())
    assert sample_path("home.jpg", tmp_path) == tmp_path / "home.jpg"


def test_motorcycle_disparity_matches_right_image(tmp_path: Path):
    pytest.importorskip("skimage", reason="pip install 'mirage_sim[perceptual]'")
    pair = motorcycle(tmp_path)
    assert pair.left.shape == pair.right.shape == (500, 741, 3)
    known = pair.disparity > 0
    assert 0.9 < known.mean() < 0.95
    assert 1.9 < pair.left_depth[known].min() < pair.left_depth.max() < 5.1  # metres, a workshop
    rows, columns = np.nonzero(known & (pair.disparity < np.arange(741)))

    def difference(shift: float) -> float:
        target = np.round(columns - pair.disparity[rows, columns] + shift).astype(int).clip(0, 740)
        return np.abs(pair.right[rows, target].astype(int) - pair.left[rows, columns]).mean()

    assert difference(0.0) < 0.8 * min(difference(-2.0), difference(2.0))


def test_all_samples_have_a_hash():
    hashes = samples.IN_SCIKIT_IMAGE | IN_OPENCV_DOC
    assert len(PHOTOGRAPHS) == 9 and set(PHOTOGRAPHS) <= set(hashes)
    assert len(set(hashes.values())) == len(hashes) == 13
    assert list(PAIRS) == ["motorcycle", "aloe"]
