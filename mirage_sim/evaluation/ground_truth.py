"""True frames and depth of the manifest's walks: rendered, checked against the manifest, and cached."""

import hashlib
import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mirage_sim.data.clips import Clip, load_clip, save_clip
from mirage_sim.data.simulators import CameraMount, ReferenceSimulator, make_simulator
from mirage_sim.evaluation.manifest import MOUNT, SIZE, Manifest, Walk
from mirage_sim.geometry import Camera, project, unproject
from mirage_sim.paths import user_cache

_log = logging.getLogger(__name__)

POSE_TOLERANCE = 1e-5  # metres and radians; the manifest holds 6 decimals
SAME_SURFACE = 0.03  # relative difference in depth within one surface
SKY = 90.0  # metres; beyond this, MiniWorld shows sky, because its depth ends at about 100 m
_EXTRAS = {"miniworld": "twin", "homes": "homes"}  # pip extra of each simulator


def digest(clip: Clip) -> str:
    """SHA-256 over the bytes of ``frames`` (uint8) and then ``depth`` (float32, little endian), row by row."""
    depth = clip.depth.contiguous().numpy().astype("<f4", copy=False)
    return hashlib.sha256(clip.frames.contiguous().numpy().tobytes() + depth.tobytes()).hexdigest()


def open_simulator(simulator: str, environment: str, furniture: str = "") -> ReferenceSimulator:
    """Open a reference simulator at the protocol's image size.

    Args:
        simulator: its name.
        environment: kind of scene.
        furniture: digest that the prepared furniture must have; empty to skip the check.

    Raises:
        ImportError: if its packages or EGL are missing; the message says what to install.
        ValueError: if furniture is not prepared, or differs from ``furniture``.
    """
    if furniture:
        _check_furniture(furniture)
    try:
        return make_simulator(simulator, environment, SIZE)
    except ImportError as error:
        raise ImportError(
            f"rendering the protocol's walks needs a simulator and headless GL: pip install "
            f"'mirage_sim[{_EXTRAS[simulator]}]', and on Debian: apt-get install libegl1 libgl1 libegl-mesa0 "
            f"libgl1-mesa-dri ({error})"
        ) from error


def _check_furniture(expected: str) -> None:
    from mirage_sim.data.simulators.homes.furniture import load_furniture

    if (found := load_furniture().digest) != expected:
        raise ValueError(
            f"furniture: expected that of the manifest's homes, {expected}, got {found}: "
            "prepare it again with mirage prepare furniture"
        )


def follow(
    simulator: ReferenceSimulator,
    environment: str,
    seed: int,
    commands: Sequence[tuple[float, float]],
    mount: CameraMount = MOUNT,
) -> Clip:
    """Drive through a scene by commands, with the camera at ``mount``, and record a clip."""
    simulator.mount = mount
    simulator.reset(seed)
    frames, depths, poses, blocked = [], [], [], []
    for step in range(len(commands) + 1):
        frame, depth = simulator.render()
        frames.append(torch.from_numpy(frame))
        depths.append(torch.from_numpy(depth))
        poses.append(simulator.camera().c2w)
        if step < len(commands):
            blocked.append(simulator.step(np.array(commands[step])))
    return Clip(
        frames=torch.stack(frames),
        depth=torch.stack(depths),
        c2w=torch.stack(poses),
        K=simulator.camera().K.clone(),
        commands=torch.tensor(commands, dtype=torch.float32),
        blocked=torch.tensor(blocked),
        source={"environment": environment, "seed": str(seed)},
    )


def check(clip: Clip, walk: Walk, source: dict[str, str], rendered_by: dict[str, str]) -> None:
    """Check that a clip is the manifest's walk.

    Raises:
        ValueError: if cameras, blocked steps, frames or depth differ.
    """
    expected = walk.cameras.c2w
    if clip.c2w.shape != expected.shape:
        raise ValueError(f"{walk.name}: expected {len(expected)} frames as in the manifest, got {len(clip.c2w)}")
    error = (clip.c2w - expected).abs().amax().item()
    if error > POSE_TOLERANCE:
        raise ValueError(f"{walk.name}: cameras differ from the manifest by {error:.2g} (expected < {POSE_TOLERANCE})")
    if not torch.equal(clip.K, walk.cameras.K[0]):
        raise ValueError(f"{walk.name}: intrinsics differ from those of the manifest's {walk.mount}: got {clip.K}")
    if tuple(np.flatnonzero(clip.blocked.numpy())) != walk.blocked:
        raise ValueError(f"{walk.name}: blocked steps differ from the manifest's {walk.blocked}")
    found = digest(clip)
    if found != walk.sha256:
        raise ValueError(
            f"{walk.name}: frames or depth differ from the manifest's: expected sha256 {walk.sha256}, got {found}. "
            f"The manifest was made with {rendered_by}; here: {source}. A software renderer "
            "(LIBGL_ALWAYS_SOFTWARE=1) of the same Mesa "
            "version gives the same pixels; a cached file that differs was damaged and can be deleted"
        )


def load_truth(walks: Sequence[Walk], manifest: Manifest, cache: Path | None = None) -> list[Clip]:
    """Load the true clips of walks from the cache, rendering missing ones (0.3 s each, plus seconds per environment).

    Args:
        walks: walks, circuits or pairs of the manifest.
        manifest: of the walks; names the simulator.
        cache: folder of rendered clips; the user's cache folder by default.

    Raises:
        ImportError: if a clip must be rendered, and the simulator's packages or EGL are missing.
        ValueError: if a clip or the prepared furniture differs from the manifest's.
    """
    folder = cache or user_cache("protocol")
    paths = {walk.name: folder / f"{walk.name}-{walk.sha256[:12]}.safetensors" for walk in walks}
    missing: dict[str, list[Walk]] = defaultdict(list)
    for walk in walks:
        if not paths[walk.name].exists():
            missing[walk.environment].append(walk)
    for environment, group in missing.items():
        _log.info("rendering %d walks of %s", len(group), environment)
        simulator = open_simulator(manifest.simulator, environment, manifest.furniture)
        rendered_by = simulator.rendered_by()
        for walk in group:
            clip = follow(simulator, environment, walk.seed, walk.commands, walk.mount)
            check(clip, walk, rendered_by, manifest.rendered_by)
            save_clip(clip, paths[walk.name])
        simulator.close()
    clips = []
    for walk in walks:
        clip = load_clip(paths[walk.name])
        check(clip, walk, {"file": str(paths[walk.name])}, manifest.rendered_by)
        clips.append(clip)
    return clips


def seen_from(depth: Tensor, camera: Camera, first_depth: Tensor, first_camera: Camera) -> Tensor:
    """Decide by true depth which pixels show a surface that the first camera saw too.

    Each pixel's true 3D point is projected into the first camera. It was seen there if it falls inside the image and
    its depth lies, within 3 %, between the smallest and the largest of the four depths around it. With a single
    neighbour, a floor at a flat angle, whose depth changes by more than 3 % from one row to the next, would count as
    hidden. Sky counts as infinitely far.

    Args:
        depth: true z-depth ``[..., H, W]`` in metres.
        camera: batch shape ``[...]``.
        first_depth: true z-depth ``[H, W]`` of the first camera, same size.
        first_camera: batch shape ``()``.

    Returns:
        bool ``[..., H, W]``.
    """
    height, width = first_camera.size
    if first_depth.shape != (height, width):
        raise ValueError(f"first_depth: expected {[height, width]} like its camera, got {list(first_depth.shape)}")
    points = unproject(torch.where(depth >= SKY, 1e5, depth.float()), camera).reshape(-1, 3)
    u, v, z = project(points, first_camera)
    inside = (z > 0) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
    left = (u.clamp(0, width) - 0.5).floor().long()
    top = (v.clamp(0, height) - 0.5).floor().long()
    clamped = first_depth.float().clamp(max=SKY)
    around = torch.stack(
        [
            clamped[(top + i).clamp(0, height - 1), (left + j).clamp(0, width - 1)]
            for i, j in ((0, 0), (0, 1), (1, 0), (1, 1))
        ]
    )
    z = z.clamp(max=SKY)
    same = (z >= around.amin(0) * (1 - SAME_SURFACE)) & (z <= around.amax(0) * (1 + SAME_SURFACE))
    has_depth = (depth > 0).reshape(-1)
    return (inside & same & has_depth).reshape(depth.shape)
