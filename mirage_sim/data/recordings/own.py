"""This project's own files as recordings: recorded walks (clips), and roll-outs that were kept as archives."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any
from zipfile import BadZipFile, ZipFile
from zlib import error as ZlibError

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from mirage_sim.data.clips import load_size
from mirage_sim.data.recordings.lens import Lens
from mirage_sim.data.recordings.recording import Array, Depth, Image, Recording
from mirage_sim.geometry import VelocityLimits

_IMAGES, _DEPTHS = "observations/rgb", "observations/depth"
_SMALL = ("c2w", "K", "times")
_MAX_SMALL = 2**28  # bytes of an array that is read whole


class ClipRecording(Recording):
    """A recorded walk as ``mirage record`` leaves it; see :mod:`mirage_sim.data.clips`.

    Raises:
        ValueError: if it is no whole clip.
    """

    layout = "clip"

    def __init__(self, source: Path):
        count, *size = load_size(source)
        with safe_open(source, framework="np") as file:
            c2w, K = (file.get_tensor(name).astype(np.float64) for name in ("c2w", "K"))
        _check_shapes(source, {"c2w": (c2w, (count, 4, 4)), "K": (K, (3, 3))})
        stamps = np.arange(count, dtype=np.float64) * VelocityLimits().dt
        notes = [f"the file states no times: images count as one per {VelocityLimits().dt:g} s"]
        sources = dict.fromkeys(("image", "depth", "poses", "intrinsics"), source.name)
        has_depth = np.ones(count, dtype=bool)
        super().__init__(source, stamps, c2w, [_lens(source, K, (size[0], size[1]))], has_depth, sources, notes)

    @classmethod
    def matches(cls, source: Path) -> bool:
        """Whether the name ends in ``.safetensors``."""
        return source.suffix == ".safetensors"

    def _load(self, numbers: Sequence[int]) -> Iterator[tuple[Image, Depth | None]]:
        with safe_open(self.source, framework="np") as file:
            images, depths = file.get_slice("frames"), file.get_slice("depth")
            for number in numbers:
                yield images[number], depths[number].astype(np.float32)


class RolloutRecording(Recording):
    """An episode as ``mirage rollout format=npz`` leaves it.

    Raises:
        ValueError: if it is no whole archive, or one of roll-outs without depth or intrinsics.
    """

    layout = "rollout"

    def __init__(self, source: Path):
        with _archive(source) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            if missing := {_IMAGES, _DEPTHS, *_SMALL} - members.keys():
                raise ValueError(
                    f"{source}: expected an archive of mirage rollout with {_IMAGES}, {_DEPTHS}, {', '.join(_SMALL)}, "
                    f"missing {sorted(missing)}"
                )
            images, depths = (_Frames(source, archive, name) for name in (_IMAGES, _DEPTHS))
            small = {}
            for name in _SMALL:
                if members[name].file_size > _MAX_SMALL:
                    raise ValueError(f"{source}: expected a small array {name}, got {members[name].file_size} bytes")
                small[name] = _Frames(source, archive, name).rest().astype(np.float64)
        count, size = images.shape[0], images.shape[1:3]
        if images.dtype != np.uint8 or images.shape != (count, *size, 3) or depths.shape != (count, *size):
            raise ValueError(
                f"{source}: expected images uint8 [N, H, W, 3] and depth [N, H, W], "
                f"got {images.dtype} {images.shape} and {depths.shape}"
            )
        _check_shapes(
            source,
            {"c2w": (small["c2w"], (count, 4, 4)), "K": (small["K"], (3, 3)), "times": (small["times"], (count,))},
        )
        sources = {"image": _IMAGES, "depth": _DEPTHS, "poses": "c2w", "intrinsics": "K"}
        lens = _lens(source, small["K"], (size[0], size[1]))
        super().__init__(source, small["times"], small["c2w"], [lens], np.ones(count, dtype=bool), sources)

    @classmethod
    def matches(cls, source: Path) -> bool:
        """Whether the name ends in ``.npz``."""
        return source.suffix == ".npz"

    def _load(self, numbers: Sequence[int]) -> Iterator[tuple[Image, Depth | None]]:
        with _archive(self.source) as archive:
            images, depths = (_Frames(self.source, archive, name) for name in (_IMAGES, _DEPTHS))
            for number in numbers:
                yield images.read(number), depths.read(number).astype(np.float32)


class _Frames:
    """An array ``[N, ...]`` in an archive of NumPy, of which one entry is in memory at a time."""

    def __init__(self, source: Path, archive: ZipFile, name: str):
        self._source, self._stream, self._next = source, archive.open(f"{name}.npy"), 0
        self.shape, self.dtype = _header(source, name, self._stream)
        self._bytes = self.dtype.itemsize * math.prod(self.shape[1:])

    def read(self, number: int) -> NDArray[Any]:
        """The entry of this number, which is not before the one that was read last."""
        while self._next <= number:
            data = self._read(self._bytes)
            self._next += 1
        return np.frombuffer(data, self.dtype).reshape(self.shape[1:]).copy()

    def rest(self) -> NDArray[Any]:
        """All entries of an array of which none has been read."""
        return np.frombuffer(self._read(self.dtype.itemsize * math.prod(self.shape)), self.dtype).reshape(self.shape)

    def _read(self, size: int) -> bytes:
        try:
            data = self._stream.read(size)
        except (BadZipFile, ZlibError, EOFError, OSError) as error:
            raise ValueError(f"{self._source}: expected a whole archive: {error}") from error
        if len(data) < size:
            raise ValueError(f"{self._source}: expected a whole archive, got one that ends early")
        return data


def _header(source: Path, name: str, stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(stream)
    except (ValueError, BadZipFile, ZlibError, EOFError, OSError) as error:
        raise ValueError(f"{source}: expected an array of NumPy, {name}: {error}") from error
    if dtype.hasobject or fortran:
        raise ValueError(f"{source}: expected an array of numbers in C order, {name}, got {dtype}")
    return shape, dtype


def _archive(source: Path) -> ZipFile:
    try:
        return ZipFile(source)
    except (BadZipFile, OSError) as error:
        raise ValueError(f"{source}: expected an archive of NumPy (.npz): {error}") from error


def _check_shapes(source: Path, arrays: Mapping[str, tuple[Array, tuple[int, ...]]]) -> None:
    for name, (array, shape) in arrays.items():
        if array.shape != shape:
            raise ValueError(f"{source}: expected {name} of shape {list(shape)}, got {list(array.shape)}")


def _lens(source: Path, K: Array, size: tuple[int, int]) -> Lens:
    return Lens((float(K[0, 0]), float(K[1, 1])), (float(K[0, 2]), float(K[1, 2])), size).validate(source)
