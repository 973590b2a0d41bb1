"""Run from any folder by an environment into which the package was installed: is everything there?"""

import sys
from importlib.metadata import version
from pathlib import Path

import gymnasium

import mirage_sim
import mirage_sim.envs.world_env
from mirage_sim.build import CONFIGS, compose
from mirage_sim.models.checkpoints import ASSETS

expected_root, expected_version = Path(sys.argv[1]).resolve(), sys.argv[2]
root = Path(mirage_sim.__file__).resolve()
if expected_root not in root.parents:
    sys.exit(f"mirage_sim: expected below {expected_root}, got {root}")
if mirage_sim.__version__ != expected_version or version("mirage_sim") != expected_version:
    sys.exit(f"version: expected {expected_version}, got {mirage_sim.__version__} and {version('mirage_sim')}")
for path in (CONFIGS / "world" / "mini.yaml", ASSETS / "protocol" / "walks.json", ASSETS / "mini"):
    if not path.exists():
        sys.exit(f"{path}: missing")
gymnasium.spec("MirageWorld-v0")
compose("rollout", ["memory=rgb"])
print("ok", root)  # noqa: T201
