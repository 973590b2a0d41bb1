"""Recordings that a simulator made: the truth beside their path."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mirage_sim.data.clips import Clip, load_clip
from mirage_sim.data.recordings import RecordedFrame
from mirage_sim.data.simulators import CameraMount, ReferenceSimulator
from mirage_sim.data.simulators.simulator import SIMULATORS

ASIDE, TURNED = 0.3, math.radians(10)  # metres and angle between a recorded camera and one off the path


def simulated_clip(source: Path) -> Clip:
    """Read a recording that a simulator made.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no clip, or does not name its simulator, environment and seed.
    """
    if not source.exists():
        raise FileNotFoundError(f"recording: expected a clip or a folder of clips, got {source}, which does not exist")
    if source.suffix != ".safetensors":
        raise ValueError(f"recording: expected a clip of mirage record (.safetensors), got {source}")
    clip = load_clip(source)
    named = clip.source.get("simulator") in SIMULATORS and clip.source.get("seed", "").isdecimal()
    if not named or "environment" not in clip.source:
        raise ValueError(
            f"recording: expected a clip that names its simulator ({', '.join(SIMULATORS)}), environment and seed, "
            f"got {source} with {clip.source}"
        )
    return clip


def mount_of(clip: Clip) -> CameraMount:
    """Return the mount of a simulator's camera, from its pose over the floor (y up) and its intrinsics."""
    pose, height = clip.c2w[0].double(), clip.frames.shape[1]
    fov_deg = 2 * math.degrees(math.atan(height / 2 / float(clip.K[1, 1])))
    pitch_deg = -math.degrees(math.asin(float(pose[1, 2].clamp(-1, 1))))
    return CameraMount(round(float(pose[1, 3]), 4), round(fov_deg, 4), round(pitch_deg, 4))


def off_path(clip: Clip, simulator: ReferenceSimulator, numbers: Sequence[int]) -> Iterator[tuple[int, RecordedFrame]]:
    """Render cameras that stand 0.3 m aside of recorded ones, and are turned by 10 degrees.

    The body stands on the left of the path, or on the right where it does not fit; the camera turns back towards what
    the recorded one saw. Where it fits on neither side, there is no frame.

    Args:
        clip: of the simulator, in its own axes.
        simulator: of the clip's environment; it is reset.
        numbers: of recorded cameras.

    Yields:
        The number of the recorded camera, and image, depth and camera beside it.
    """
    simulator.mount = mount_of(clip)
    simulator.reset(int(clip.source["seed"]))
    for number in numbers:
        pose = clip.c2w[number].double().numpy()
        heading = math.atan2(-pose[2, 2], pose[0, 2])
        for side in (-1, 1):  # +x is right
            position = pose[[0, 2], 3] + side * ASIDE * pose[[0, 2], 0]
            if simulator.free_steps(position, pose[[0, 2], 0], 0) is not None:
                simulator.put(position, heading + side * TURNED)
                image, depth = simulator.render()
                yield number, RecordedFrame(image, np.asarray(depth, np.float32), simulator.camera(), 0.0)
                break
