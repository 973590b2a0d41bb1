import cv2
import numpy as np
import pytest
import torch

from mirage_sim.geometry import Camera, project
from mirage_sim.world.images import fit, read_image, to_tensor, to_uint8


def test_bytes_survive_the_way_to_a_tensor_and_back():
    image = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    tensor = to_tensor(image)
    assert tensor.shape == (3, 16, 16)
    assert (tensor.min().item(), tensor.max().item()) == (-1.0, 1.0)
    assert np.array_equal(to_uint8(tensor), image)


def test_files_are_read_as_rgb(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    path = tmp_path / "picture.png"
    cv2.imwrite(str(path), image[..., ::-1])
    assert np.array_equal(read_image(path), image)
    assert np.array_equal(read_image(str(path)), image)


@pytest.mark.parametrize("shape", [(96, 400), (300, 128), (48, 64), (53, 71), (16, 16), (97, 128)])
def test_fitting_keeps_where_things_are(shape):
    """A bright dot stays where the camera says that its direction is, whatever was cut and resized."""
    height, width = shape
    camera = Camera.from_fov(torch.eye(4), 50.0, shape)
    image = np.zeros((height, width, 3), np.uint8)
    row, column = round(0.45 * height), round(0.52 * width)
    image[row - 2 : row + 2, column - 2 : column + 2] = 255  # centred on the pixel corner (column, row)
    ray = torch.linalg.solve(camera.K, torch.tensor([float(column), float(row), 1.0]))
    fitted, at = fit(image, camera, (48, 64))
    assert fitted.shape == (48, 64, 3)
    assert at.size == (48, 64)
    u, v, _ = project(ray[None], at)
    weight = fitted[..., 0].astype(float)
    rows, columns = np.mgrid[:48, :64] + 0.5
    tolerance = 0.1 + 0.6 * max(1.0, 48 / min(shape))
    assert (weight * columns).sum() / weight.sum() == pytest.approx(u.item(), abs=tolerance)
    assert (weight * rows).sum() / weight.sum() == pytest.approx(v.item(), abs=tolerance)


def test_fitting_the_right_size_changes_nothing():
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    camera = Camera.from_fov(torch.eye(4), 60.0, (48, 64))
    fitted, at = fit(image, camera, (48, 64))
    assert np.array_equal(fitted, image)
    assert torch.equal(at.K, camera.K)


@pytest.mark.parametrize(
    ("image", "got"),
    [
        (np.zeros((48, 64), np.uint8), r"uint8 \[48, 64\]"),
        (np.zeros((48, 64, 4), np.uint8), r"uint8 \[48, 64, 4\]"),
        (np.zeros((48, 64, 3), np.float32), r"float32 \[48, 64, 3\]"),
        (np.zeros((0, 64, 3), np.uint8), r"\[0, 64\]"),
        (np.zeros((15, 64, 3), np.uint8), r"\[15, 64\]"),
        (np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (8193, 64, 3)), r"\[8193, 64\]"),
        (torch.zeros(48, 64, 3), "Tensor"),
        ([[0, 0, 0]], "list"),
        (3, "int"),
    ],
)
def test_what_is_no_picture_is_refused(image, got):
    with pytest.raises(ValueError, match=f"image: expected .*got {got}"):
        read_image(image)


def test_unreadable_files_are_refused(tmp_path):
    (tmp_path / "text.png").write_text("no picture at all")
    (tmp_path / "empty.png").touch()
    for name in ("text.png", "empty.png", "."):
        with pytest.raises(ValueError, match="image: expected a readable picture file"):
            read_image(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_image(tmp_path / "missing.png")
