"""The committed list of walks that every figure is measured on: protocol 1.

The manifest holds what makes each walk again (environment, seed, commands), where its cameras must then stand, and a
hash of its frames and depth. Reading it needs neither MiniWorld nor EGL; making the frames again does (``truth.py``).
"""

import json
import math
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from mirage_sim.data.simulators import EVALUATION_SEEDS, CameraMount
from mirage_sim.geometry import Camera

PROTOCOL = 1
MOUNT = CameraMount()  # of every walk
SIZE = (96, 128)  # height, width
SUBSETS = ("quick", "full")


@dataclass(frozen=True)
class Walk:
    """One walk, or one circuit A, B, A, B when ``leg`` is not 0.

    Attributes:
        environment: MiniWorld environment, such as ``"OneRoom"``.
        seed: of the scene, within ``EVALUATION_SEEDS``.
        quick: whether it belongs to the quick subset.
        commands: one ``(forward, turn)`` in [-1, 1] per step.
        blocked: the steps whose way was blocked.
        poses: one ``(x, z, heading)`` per frame: metres in MiniWorld's world frame (y up), radians, 6 decimals.
        sha256: hex digest of frames and depth, see :func:`mirage_sim.evaluation.truth.digest`.
        leg: steps from A to B; B is seen at steps ``leg`` and ``3 * leg``, A at 0 and ``2 * leg``. 0 for a walk.
    """

    environment: str
    seed: int
    quick: bool
    commands: tuple[tuple[float, float], ...]
    blocked: tuple[int, ...]
    poses: tuple[tuple[float, float, float], ...]
    sha256: str
    leg: int = 0

    @property
    def name(self) -> str:
        """Unique name, also that of its files."""
        return f"{self.environment}-{self.seed:06d}"

    @property
    def cameras(self) -> Camera:
        """The cameras as the manifest states them, batch shape ``[steps + 1]``."""
        c2w = torch.zeros(len(self.poses), 4, 4)
        for i, (x, z, heading) in enumerate(self.poses):
            cos, sin = math.cos(heading), math.sin(heading)
            c2w[i] = torch.tensor(
                [[sin, 0.0, cos, x], [0.0, -1.0, 0.0, MOUNT.height], [cos, 0.0, -sin, z], [0.0, 0.0, 0.0, 1.0]]
            )
        return Camera.from_fov(c2w, MOUNT.fov_deg, SIZE)


@dataclass(frozen=True)
class Manifest:
    """All walks and circuits of a protocol, and what rendered them.

    Attributes:
        walks: the walks, grouped by environment.
        circuits: the revisit circuits, grouped by environment.
        rendered_by: versions of MiniWorld and of the GL renderer that the hashes were made with.
    """

    walks: tuple[Walk, ...]
    circuits: tuple[Walk, ...]
    rendered_by: dict[str, str]

    def subset(self, name: str) -> "Manifest":
        """The ``"quick"`` or the ``"full"`` version.

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
        )


def pinned() -> dict[str, Any]:
    """What every walk shares, and what the manifest must agree with: camera, picture size, meaning of a command."""
    return {
        "protocol": PROTOCOL,
        "size": list(SIZE),
        "camera": {"height": MOUNT.height, "fov": MOUNT.fov_deg, "pitch": MOUNT.pitch_deg},
        "drive": {"dt": 0.1, "max_speed": 1.5, "max_turn_rate": round(math.pi / 3, 6)},
    }


def _entry(walk: Walk) -> dict[str, Any]:
    entry: dict[str, Any] = {"environment": walk.environment, "seed": walk.seed, "quick": walk.quick}
    if walk.leg:
        entry["leg"] = walk.leg
    entry |= {"sha256": walk.sha256, "commands": walk.commands, "blocked": walk.blocked, "poses": walk.poses}
    return entry


def save_manifest(manifest: Manifest, path: Path) -> None:
    """Write a manifest as JSON, one walk per line; the file appears whole or not at all."""
    head = json.dumps(pinned() | {"rendered_by": manifest.rendered_by}, indent=1)[:-2]
    lists = [
        f' "{key}": [\n' + ",\n".join(json.dumps(_entry(walk), separators=(",", ":")) for walk in walks) + "\n ]"
        for key, walks in (("walks", manifest.walks), ("circuits", manifest.circuits))
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(",\n".join([head, *lists]) + "\n}\n")
    partial.replace(path)


def _walk(entry: dict[str, Any], where: str) -> Walk:
    try:
        walk = Walk(
            environment=str(entry["environment"]),
            seed=int(entry["seed"]),
            quick=bool(entry["quick"]),
            commands=tuple((float(forward), float(turn)) for forward, turn in entry["commands"]),
            blocked=tuple(int(step) for step in entry["blocked"]),
            poses=tuple((float(x), float(z), float(heading)) for x, z, heading in entry["poses"]),
            sha256=str(entry["sha256"]),
            leg=int(entry.get("leg", 0)),
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
    return walk


def manifest_path() -> Path:
    """Where the committed manifest lies inside the package."""
    return Path(str(resources.files("mirage_sim"))) / "assets" / "protocol" / "walks.json"


def load_manifest(path: Path | None = None) -> Manifest:
    """Read a manifest; the committed one by default.

    Raises:
        ValueError: if it is not a manifest of this protocol.
    """
    path = path or manifest_path()
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: expected a readable manifest in JSON: {error}") from error
    for key, expected in pinned().items():
        if content.get(key) != expected:
            raise ValueError(f"{path}: {key}: expected {expected}, got {content.get(key)}")
    lists = {
        key: tuple(_walk(entry, f"{path}: {key}[{i}]") for i, entry in enumerate(content.get(key, [])))
        for key in ("walks", "circuits")
    }
    return Manifest(lists["walks"], lists["circuits"], dict(content.get("rendered_by", {})))
