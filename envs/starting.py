"""Where an episode of ``MirageWorld-v0`` starts: an image, several observations, or a saved world."""

from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mirage_sim.build import build_world_model
from mirage_sim.geometry import Camera
from mirage_sim.world import Snapshot, World, WorldModel
from mirage_sim.world.images import read_image
from mirage_sim.world.session import START

#: Keys of ``reset(options=...)``, besides those of the task.
OPTIONS = ("image", "depth", "fov_deg", "start", "prompt", "observations", "world")
_ENTRY = {"image", "depth", "c2w", "K", "fov_deg"}


@cache
def shared_model(world: str) -> WorldModel:
    """Load the world model of a configuration, once per process; all environments share it."""
    return build_world_model(world)


class Starts:
    """The start images of an environment, or a saved world whose keyframes are the starts.

    Args:
        model: of the worlds.
        starts: uint8 ``[N, H, W, 3]``; a path to a saved world with keyframes; None for the built-in images.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the array or the file is unusable.
    """

    def __init__(self, model: WorldModel, starts: np.ndarray | str | Path | None):
        self._saved: Snapshot | None = None
        self._images: np.ndarray | None = None
        if isinstance(starts, (str, Path)):
            self._saved = load_world(starts, model)
            if not self._saved.state.keyframes:
                raise ValueError(f"starts: expected a saved world with keyframes, got {starts}, which has none")
        else:
            World(model, starts)  # checks the array
            self._images = starts

    def begin(self, model: WorldModel, options: dict[str, Any], number: int, seed: int) -> World:
        """Start a world.

        Args:
            model: of the world.
            options: of ``reset``; see :class:`~mirage_sim.envs.world_env.MirageWorldEnv`.
            number: random number that chooses the start, where the options do not.
            seed: of all generated content.

        Raises:
            FileNotFoundError: if a file does not exist.
            ValueError: if options are invalid or do not go together.
        """
        sources = [key for key in ("image", "observations", "world") if key in options]
        if len(sources) > 1:
            raise ValueError(f"options: expected at most one of image, observations and world, got {sources}")
        world, start = World(model, self._images), options.get("start")
        if "observations" in options:
            _observe_all(world, options["observations"], seed, options.get("prompt"))
        elif "world" in options:
            world.restore(load_world(options["world"], model))
            world.restart(seed, start)
        elif self._saved and "image" not in options:
            world.restore(self._saved)
            world.restart(seed, number % len(self._saved.state.keyframes or ()) if start is None else start)
        else:
            image = options.get("image", START)
            if image is START and start is None:
                start = number % len(world.starts)
            fov_deg, prompt, depth = options.get("fov_deg", 60.0), options.get("prompt"), options.get("depth")
            world.reset(image, start, seed=seed, fov_deg=fov_deg, prompt=prompt, depth=depth)
        return world


def load_world(path: str | Path, model: WorldModel) -> Snapshot:
    """Load a saved world; the latest few are kept until their file changes.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a saved world of such a model.
    """
    if not isinstance(path, (str, Path)):
        raise ValueError(f"world: expected the path of a saved world, got {type(path).__name__}")
    path = Path(path)
    changed = path.stat().st_mtime_ns if path.exists() else 0
    return _load(path.absolute(), changed, model)


@lru_cache(maxsize=4)
def _load(path: Path, changed: int, model: WorldModel) -> Snapshot:
    world = World(model)
    world.load(path)
    return world.snapshot()


def _observe_all(world: World, observations: Any, seed: int, prompt: str | None) -> None:
    """Start a world from the first of several observations and add the others; it stays where the first was made."""
    expected = f"a list of dicts with image, c2w and optionally {sorted(_ENTRY - {'image', 'c2w'})}"
    if isinstance(observations, (str, bytes)) or not isinstance(observations, Sequence) or not observations:
        raise ValueError(f"observations: expected {expected}, got {type(observations).__name__}")
    for number, entry in enumerate(observations):
        if not isinstance(entry, dict) or not {"image", "c2w"} <= set(entry) <= _ENTRY:
            got = sorted(map(str, entry)) if isinstance(entry, dict) else type(entry).__name__
            raise ValueError(f"observations[{number}]: expected {expected}, got {got}")
        image = read_image(entry["image"])
        camera = _camera(number, entry, image.shape[:2])
        if number == 0:
            world.reset(image, camera=camera, seed=seed, prompt=prompt, depth=entry.get("depth"))
        else:
            world.observe(image, camera, entry.get("depth"))


def pose_camera(c2w: Any, fov_deg: float, image: Any) -> Camera | None:
    """Return the camera of an image at a pose, or None without a pose.

    Raises:
        FileNotFoundError: if the image is a path that does not exist.
        ValueError: if pose or image are unusable.
    """
    if c2w is None:
        return None
    height, width = read_image(image).shape[:2]
    return Camera.from_fov(_matrix("c2w", c2w, 4), fov_deg, (height, width))


def _camera(number: int, entry: dict[str, Any], size: tuple[int, int]) -> Camera:
    pose = _matrix(f"observations[{number}]: c2w", entry["c2w"], 4)
    if "K" in entry:
        return Camera(pose, _matrix(f"observations[{number}]: K", entry["K"], 3), size)
    return Camera.from_fov(pose, float(entry.get("fov_deg", 60.0)), size)


def _matrix(name: str, values: Any, side: int) -> torch.Tensor:
    try:
        matrix = torch.as_tensor(np.asarray(values, np.float32))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected numbers [{side}, {side}], got {type(values).__name__}") from error
    if tuple(matrix.shape) != (side, side):
        raise ValueError(f"{name}: expected numbers [{side}, {side}], got {list(matrix.shape)}")
    return matrix
