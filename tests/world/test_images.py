import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mirage_sim.geometry import Camera, project
from mirage_sim.world.images import fit, read_image, to_tensor, to_uint8


def test_to_uint8_inverts_to_tensor():
    image = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    tensor = to_tensor(image)
    assert tensor.shape == (3, 16, 16)
    assert (tensor.min().item(), tensor.max().item()) == (-1.0, 1.0)
    assert np.array_equal(to_uint8(tensor), image)


def test_files_are_read_as_rgb(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    path = tmp_path / "image.png"
    Image.fromarray(image).save(path)
    assert np.array_equal(read_image(path), image)
    assert np.array_equal(read_image(str(path)), image)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1"])
def test_other_pixel_modes_become_rgb(tmp_path, mode):
    Image.new("RGB", (30, 20), (255, 255, 255)).convert(mode).save(tmp_path / "image.tiff")
    image = read_image(tmp_path / "image.tiff")
    assert image.shape == (20, 30, 3) and image.dtype == np.uint8 and (image == 255).all()


def test_format_is_detected_and_orientation_applied(tmp_path):
    image = np.zeros((20, 30, 3), np.uint8)
    image[:, :15] = 200
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90 degrees, clockwise
    Image.fromarray(image).save(tmp_path / "photograph.png", format="JPEG", exif=exif, quality=95)
    upright = read_image(tmp_path / "photograph.png")
    assert upright.shape == (30, 20, 3)
    assert (upright[:14] > 190).all() and (upright[16:] < 10).all()


def test_shrinking_averages(tmp_path):
    stripes = np.zeros((96, 128, 3), np.uint8)
    stripes[:, ::2] = 255
    camera = Camera.from_fov(torch.eye(4), 60.0, (96, 128))
    fitted, _ = fit(stripes, camera, (48, 64))
    assert np.abs(fitted.astype(int) - 128).max() <= 1


@pytest.mark.parametrize("shape", [(96, 400), (300, 128), (48, 64), (53, 71), (16, 16), (97, 128)])
def test_fit_keeps_projected_positions(shape):
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


def test_fit_of_the_right_size_changes_nothing():
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
        (torch.zeros(48, 64, 3), r"a tensor, torch.float32 \[48, 64, 3\]; tensor.numpy\(\) makes an array of it"),
        (None, "None, which is what cv2.imread returns for a file that it cannot read"),
        ([[0, 0, 0]], "list"),
        (3, "int"),
    ],
)
def test_other_types_are_rejected(image, got):
    with pytest.raises(ValueError, match=f"image: expected .*got {got}"):
        read_image(image)


def test_unreadable_files_are_rejected(tmp_path):
    (tmp_path / "text.png").write_text("no image at all")
    (tmp_path / "empty.png").touch()
    for name in ("text.png", "empty.png", "."):
        with pytest.raises(ValueError, match="image: expected a readable image file"):
            read_image(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_image(tmp_path / "missing.png")


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow warns of what it then refuses
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.bmp", "a.tiff", "a.gif", "a.ppm"])
def test_damaged_files_are_rejected_or_read(tmp_path, name):
    """A file that was cut is refused; one with a wrong byte is read, or refused with the same error."""
    rng = np.random.default_rng(0)
    path = tmp_path / name
    Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(path)
    whole = path.read_bytes()
    assert read_image(path).shape == (24, 32, 3)
    for part in (0.02, 0.1, 0.5, 0.9):
        path.write_bytes(whole[: int(part * len(whole))])
        with pytest.raises(ValueError, match="image: expected a (readable|complete) image file"):
            read_image(path)
    for _ in range(100):
        damaged = bytearray(whole)
        damaged[rng.integers(min(len(whole), 200))] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read_image(path)
        except ValueError as error:
            assert str(error).startswith("image: expected")  # noqa: PT017


def png_header(width: int, height: int) -> bytes:
    """The beginning of a PNG of this size: all that is needed to promise pixels."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    header = struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return b"\x89PNG\r\n\x1a\n" + header + struct.pack(">I", 1 << 20) + b"IDAT" + bytes(1 << 10)


@pytest.mark.parametrize(
    "size", [(8193, 64), (64, 8193), (8193, 8193), (10_000, 10_000), (2**31 - 1, 2**31 - 1), (15, 64)]
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_size_is_checked_before_decoding(tmp_path: Path, size: tuple[int, int]):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(*size))
    with pytest.raises(ValueError, match="image: expected sides of 16 to 8192 pixels"):
        read_image(path)
    path.write_bytes(png_header(8192, 1024))  # an allowed size gets as far as the pixels, which are missing
    with pytest.raises(ValueError, match="image: expected a complete image file"):
        read_image(path)


def test_unsafe_formats_and_deep_pixels_are_rejected(tmp_path):
    Image.new("RGB", (32, 32)).save(tmp_path / "a.eps")
    with pytest.raises(ValueError, match="image: expected a readable image file"):
        read_image(tmp_path / "a.eps")
    Image.new("I;16", (32, 32)).save(tmp_path / "deep.png")
    with pytest.raises(ValueError, match="image: expected 8 bits per channel, got .*I;16"):
        read_image(tmp_path / "deep.png")
