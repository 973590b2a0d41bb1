"""Manifests: the committed lists of walks of each protocol.

For each walk, a manifest holds the environment, seed, commands and camera mount that reproduce it, the poses of its
cameras, and a hash of its frames and depth. Reading a manifest needs neither a simulator nor EGL; rendering the frames
(:mod:`mirage_sim.evaluation.ground_truth`) does.
"""

import hashlib
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mirage_sim.data.simulators import EVALUATION_SEEDS, CameraMount
from mirage_sim.data.simulators.miniworld import HELD_OUT_ENVIRONMENTS
from mirage_sim.geometry import Camera
from mirage_sim.io import atomic_write
from mirage_sim.paths import ASSETS

# number and manifest file of the protocol of each reference simulator
PROTOCOLS = {"miniworld": (1, "walks.json"), "homes": (2, "homes.json")}
SEEN, UNSEEN, PAIRED = "seen", "unseen", "paired"  # the environments of protocol 2
HELD_OUT = (*HELD_OUT_ENVIRONMENTS, UNSEEN)  # environments of any protocol with content that training never shows
MOUNT = CameraMount()  # of every walk without a mount of its own
SIZE = (96, 128)  # height, width
SUBSETS = ("quick", "full")


@dataclass(frozen=True)
class Walk:
    """One walk, or one circuit A, B, A, B when ``leg`` is not 0.

    Attributes:
        environment: of the simulator, such as ``"OneRoom"`` or ``"unseen"``.
        seed: of the scene, within ``EVALUATION_SEEDS``.
        quick: whether it belongs to the quick subset.
        commands: one ``(forward, turn)`` in [-1, 1] per step.
        blocked: indices of blocked steps.
        poses: one ``(x, z, heading)`` per frame: metres in the simulator's world frame (y up), radians, 6 decimals.
        sha256: hex digest of frames and depth, see :func:`mirage_sim.evaluation.ground_truth.digest`.
        leg: steps from A to B; the camera is at B in steps ``leg`` and ``3 * leg``, at A in steps 0 and ``2 * leg``. 0
            for a walk.
        mount: of the camera on the body.
    """

    environment: str
    seed: int
    quick: bool
    commands: tuple[tuple[float, float], ...]
    blocked: tuple[int, ...]
    poses: tuple[tuple[float, float, float], ...]
    sha256: str
    leg: int = 0
    mount: CameraMount = MOUNT

    @property
    def name(self) -> str:
        """Unique name, also used for files."""
        return f"{self.environment}-{self.seed:06d}"

    @property
    def cameras(self) -> Camera:
        """The cameras at ``poses``, batch shape ``[steps + 1]``."""
        c2w = np.stack([self.mount.camera_to_world(np.array([x, 0.0, z]), heading) for x, z, heading in self.poses])
        return Camera.from_fov(torch.from_numpy(c2w), self.mount.fov_deg, SIZE)


@dataclass(frozen=True)
class Manifest:
    """All walks and circuits of a protocol, and the renderer of their frames.

    Attributes:
        walks: the walks, grouped by environment.
        circuits: the revisit circuits, grouped by environment.
        rendered_by: versions of the simulator and of the GL renderer that produced the hashes.
        simulator: name of the reference simulator.
        furniture: digest of the furniture in its scenes; empty if the simulator needs none.
        pairs: copies of walks in ``UNSEEN`` homes, with the same seeds, commands and cameras, in the same homes
            furnished with seen pieces (``PAIRED``).
    """

    walks: tuple[Walk, ...]
    circuits: tuple[Walk, ...]
    rendered_by: dict[str, str]
    simulator: str = "miniworld"
    furniture: str = ""
    pairs: tuple[Walk, ...] = ()

    @property
    def protocol(self) -> int:
        """Number of the protocol."""
        return PROTOCOLS[self.simulator][0]

    @property
    def sha256(self) -> str:
        """Hex digest of the file that :func:`save_manifest` writes."""
        return hashlib.sha256(_text(self).encode()).hexdigest()

    def subset(self, name: str) -> "Manifest":
        """Return the ``"quick"`` subset or the ``"full"`` manifest.

        Raises:
            ValueError: for any other name.
        """
        if name not in SUBSETS:
            raise ValueError(f"walks: expected one of {SUBSETS}, got {name!r}")
        if name == "full":
            return self
        return replace(
            self,
            walks=tuple(walk for walk in self.walks if walk.quick),
            circuits=tuple(walk for walk in self.circuits if walk.quick),
            pairs=tuple(walk for walk in self.pairs if walk.quick),
        )


def pinned(simulator: str) -> dict[str, Any]:
    """Constants of a protocol that its manifest must repeat: camera, image size, meaning of a command.

    Raises:
        ValueError: if the simulator has no protocol.
    """
    if simulator not in PROTOCOLS:
        raise ValueError(f"protocol: expected one of {sorted(PROTOCOLS)}, got {simulator!r}")
    return {
        "protocol": PROTOCOLS[simulator][0],
        "size": list(SIZE),
        "camera": _camera(MOUNT),
        "drive": {"dt": 0.1, "max_speed": 1.5, "max_turn_rate": round(math.pi / 3, 6)},
    }


def _entry(walk: Walk) -> dict[str, Any]:
    entry: dict[str, Any] = {"environment": walk.environment, "seed": walk.seed, "quick": walk.quick}
    if walk.leg:
        entry["leg"] = walk.leg
    if walk.mount != MOUNT:
        entry["camera"] = _camera(walk.mount)
    entry |= {"sha256": walk.sha256, "commands": walk.commands, "blocked": walk.blocked, "poses": walk.poses}
    return entry


def _camera(mount: CameraMount) -> dict[str, float]:
    return {"height": mount.height, "fov": mount.fov_deg, "pitch": mount.pitch_deg}


def _text(manifest: Manifest) -> str:
    """A manifest as JSON, one walk per line."""
    about: dict[str, Any] = pinned(manifest.simulator) | {"rendered_by": manifest.rendered_by}
    if manifest.furniture:
        about["furniture"] = manifest.furniture
    kinds = {"walks": manifest.walks, "circuits": manifest.circuits}
    if manifest.pairs:
        kinds["pairs"] = manifest.pairs
    lists = [
        f' "{key}": [\n' + ",\n".join(json.dumps(_entry(walk), separators=(",", ":")) for walk in walks) + "\n ]"
        for key, walks in kinds.items()
    ]
    return ",\n".join([json.dumps(about, indent=1)[:-2], *lists]) + "\n}\n"


def save_manifest(manifest: Manifest, path: Path) -> None:
    """Write a manifest atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        partial.write_text(_text(manifest))


def _walk(entry: dict[str, Any], where: str) -> Walk:
    try:
        camera = entry.get("camera", _camera(MOUNT))
        walk = Walk(
            environment=str(entry["environment"]),
            seed=int(entry["seed"]),
            quick=bool(entry["quick"]),
            commands=tuple((float(forward), float(turn)) for forward, turn in entry["commands"]),
            blocked=tuple(int(step) for step in entry["blocked"]),
            poses=tuple((float(x), float(z), float(heading)) for x, z, heading in entry["poses"]),
            sha256=str(entry["sha256"]),
            leg=int(entry.get("leg", 0)),
            mount=CameraMount(float(camera["height"]), float(camera["fov"]), float(camera["pitch"])),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{where}: expected a walk with all its fields, got {error!r}") from error
    if walk.seed not in EVALUATION_SEEDS:
        raise ValueError(f"{where}: seed: expected within {EVALUATION_SEEDS}, got {walk.seed}")
    if len(walk.poses) != len(walk.commands) + 1:
        raise ValueError(
            f"{where}: poses: expected one more than commands, got {len(walk.poses)}, {len(walk.commands)}"
        )
    if walk.leg and len(walk.commands) != 3 * walk.leg:
        raise ValueError(f"{where}: commands: expected three legs of {walk.leg}, got {len(walk.commands)}")
    mount = walk.mount
    if not (0.0 < mount.height < 10.0 and 0.0 < mount.fov_deg < 180.0 and abs(mount.pitch_deg) < 90.0):
        raise ValueError(f"{where}: camera: expected metres in (0, 10), degrees in (0, 180), (-90, 90), got {mount}")
    return walk


def _check_pairs(manifest: Manifest, path: Path) -> None:
    """Check that commands and cameras of each pair are those of the walk in the unseen home."""
    unseen = {walk.seed: walk for walk in manifest.walks if walk.environment == UNSEEN}
    for i, walk in enumerate(manifest.pairs):
        other = unseen.get(walk.seed)
        if other is None or replace(walk, environment=UNSEEN, sha256=other.sha256) != other:
            raise ValueError(
                f"{path}: pairs[{i}]: expected the commands and cameras of the {UNSEEN!r} walk of its seed {walk.seed}"
            )


def manifest_path(protocol: str = "miniworld") -> Path:
    """Path of the committed manifest of a protocol."""
    return ASSETS / "protocol" / PROTOCOLS[protocol][1]


def load_manifest(path: Path | None = None, protocol: str = "miniworld") -> Manifest:
    """Read a manifest.

    Args:
        path: of the file; the committed manifest by default.
        protocol: name of the reference simulator, a key of ``PROTOCOLS``.

    Raises:
        ValueError: if the protocol does not exist, or the file is not a manifest of it.
    """
    expected = pinned(protocol)
    path = path or manifest_path(protocol)
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: expected a readable manifest in JSON: {error}") from error
    for key, value in expected.items():
        if content.get(key) != value:
            raise ValueError(f"{path}: {key}: expected {value}, got {content.get(key)}")
    lists = {
        key: tuple(_walk(entry, f"{path}: {key}[{i}]") for i, entry in enumerate(content.get(key, [])))
        for key in ("walks", "circuits", "pairs")
    }
    manifest = Manifest(
        **lists,
        rendered_by=dict(content.get("rendered_by", {})),
        simulator=protocol,
        furniture=str(content.get("furniture", "")),
    )
    _check_pairs(manifest, path)
    return manifest
