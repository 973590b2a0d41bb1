"""True frames and depth of the manifest's walks: rendered again, checked against the manifest, kept in a cache."""

import hashlib
import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from mirage_sim.data.clips import Clip, load_clip, save_clip
from mirage_sim.data.simulators import CameraMount, ReferenceSimulator, make_simulator
from mirage_sim.evaluation.manifest import MOUNT, SIZE, Manifest, Walk
from mirage_sim.paths import user_cache

_log = logging.getLogger(__name__)

POSE_TOLERANCE = 1e-5  # metres and radians; the manifest keeps 6 decimals
_EXTRAS = {"miniworld": "twin", "homes": "homes"}  # what each simulator needs


def default_cache() -> Path:
    """The user's cache folder for rendered walks."""
    return user_cache("protocol")


def digest(clip: Clip) -> str:
    """SHA-256 over the bytes of ``frames`` (uint8) and then ``depth`` (float32, little endian), row by row."""
    depth = clip.depth.contiguous().numpy().astype("<f4", copy=False)
    return hashlib.sha256(clip.frames.contiguous().numpy().tobytes() + depth.tobytes()).hexdigest()


def open_simulator(simulator: str, environment: str, furniture: str = "") -> ReferenceSimulator:
    """The reference simulator at the protocol's size.

    Args:
        simulator: its name.
        environment: kind of scene.
        furniture: digest that the prepared furniture must have; empty for any, or none.

    Raises:
        ImportError: naming what to install, where its packages or EGL are missing.
        ValueError: if furniture is not prepared, or is other furniture.
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
    """Drive through a scene by the given commands, with the camera at ``mount``, and keep everything."""
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


def check(clip: Clip, walk: Walk, here: dict[str, str], made_by: dict[str, str]) -> None:
    """Compare a clip with what the manifest says about it.

    Raises:
        ValueError: naming the walk and what differs.
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
            f"The manifest was made with {made_by}; here: {here}. A software renderer (LIBGL_ALWAYS_SOFTWARE=1) of the "
            "same Mesa version gives the same pixels; a cached file that differs was damaged and can be deleted"
        )


def load_truth(walks: Sequence[Walk], manifest: Manifest, cache: Path | None = None) -> list[Clip]:
    """True clips of the given walks, from the cache or rendered now (about 0.3 s each, plus seconds per environment).

    Args:
        walks: walks, circuits or pairs of the manifest.
        manifest: says which simulator renders them, and what made it.
        cache: folder; the user's cache folder by default.

    Raises:
        ImportError: where something must be rendered, and the simulator's packages or EGL are missing.
        ValueError: if a clip is not what the manifest says, or the furniture is not prepared or not the manifest's.
    """
    folder = cache or default_cache()
    paths = {walk.name: folder / f"{walk.name}-{walk.sha256[:12]}.safetensors" for walk in walks}
    missing: dict[str, list[Walk]] = defaultdict(list)
    for walk in walks:
        if not paths[walk.name].exists():
            missing[walk.environment].append(walk)
    for environment, group in missing.items():
        _log.info("rendering %d walks of %s", len(group), environment)
        simulator = open_simulator(manifest.simulator, environment, manifest.furniture)
        here = simulator.rendered_by()
        for walk in group:
            clip = follow(simulator, environment, walk.seed, walk.commands, walk.mount)
            check(clip, walk, here, manifest.rendered_by)
            save_clip(clip, paths[walk.name])
        simulator.close()
    clips = []
    for walk in walks:
        clip = load_clip(paths[walk.name])
        check(clip, walk, {"file": str(paths[walk.name])}, manifest.rendered_by)
        clips.append(clip)
    return clips
