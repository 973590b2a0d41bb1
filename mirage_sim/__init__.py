"""mirage_sim: a world model with a latent spatial memory that you can step.

``import mirage_sim`` registers the Gymnasium environments without importing torch; the names in ``__all__`` are
imported when they are first used.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

from mirage_sim.envs.registration import register_envs

if TYPE_CHECKING:
    from mirage_sim.build import build_world_model
    from mirage_sim.geometry import Camera, VelocityLimits
    from mirage_sim.world import Observation, World, WorldModel

_MODULES = {
    "Camera": "mirage_sim.geometry",
    "VelocityLimits": "mirage_sim.geometry",
    "Observation": "mirage_sim.world",
    "World": "mirage_sim.world",
    "WorldModel": "mirage_sim.world",
    "build_world_model": "mirage_sim.build",
}

__all__ = [
    "Camera",
    "VelocityLimits",
    "Observation",
    "World",
    "WorldModel",
    "__version__",
    "build_world_model",
]


def _version() -> str:
    """Return the installed version, or that of package.xml in a checkout that is not installed."""
    import importlib.metadata
    import xml.etree.ElementTree as ElementTree
    from pathlib import Path

    try:
        return importlib.metadata.version(__name__)
    except importlib.metadata.PackageNotFoundError:
        manifest = Path(__file__).resolve().parent.parent / "package.xml"
        return ElementTree.parse(manifest).findtext("version", "unknown")


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value = _version()
    elif name in _MODULES:
        value = getattr(importlib.import_module(_MODULES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


# OpenMP's threads wait for each other hundreds of times a step. Long spinning blocks cores, even the one that the
# awaited thread needs; sleeping at once costs a third of the speed on an idle machine. So they spin briefly, then
# sleep, unless the user has set a policy. It must be set before torch is loaded.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
register_envs()
