"""Run from any folder by an environment into which the package was installed: is everything there?

Arguments: where the package must be, its version, and the prefix below which share/mirage_sim must be, if anywhere.
"""

import ast
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import gymnasium

import mirage_sim
import mirage_sim.envs.world_env
from mirage_sim.build import compose
from mirage_sim.paths import ASSETS, CONFIGS

expected_root, expected_version = Path(sys.argv[1]).resolve(), sys.argv[2]
root = Path(mirage_sim.__file__).resolve()
if expected_root not in root.parents:
    sys.exit(f"mirage_sim: expected below {expected_root}, got {root}")
if mirage_sim.__version__ != expected_version or version("mirage_sim") != expected_version:
    sys.exit(f"version: expected {expected_version}, got {mirage_sim.__version__} and {version('mirage_sim')}")
for path in (CONFIGS / "world" / "mini.yaml", ASSETS / "protocol" / "walks.json", ASSETS / "mini"):
    if not path.exists():
        sys.exit(f"{path}: missing")
# what the launch file asks the Python of the nodes for
asked = subprocess.run(
    [sys.executable, "-m", "mirage_sim.ros.launching", '{"policy": "scripted"}'], capture_output=True, check=True
)
found = json.loads(asked.stdout)
files = [word for word in [*found["world"], *found["policy"]] if word.endswith(".yaml")]
files += [found["rviz"], found["environment"]["FASTDDS_DEFAULT_PROFILES_FILE"]]
if found["world"][0] != sys.executable or len(files) != 4:
    sys.exit(f"processes: expected ours, with their files, got {found}")
if len(sys.argv) > 3:
    share = Path(sys.argv[3]) / "share"
    # where ros2 looks: for the package, and for what it brings
    files.append(str(share / "ament_index" / "resource_index" / "packages" / "mirage_sim"))
    names = ["package.xml", "launch/world.launch.py", "configs/fastdds.xml"]
    names += [f"configs/ros/{name}" for name in ("world.yaml", "policy.yaml", "world.rviz")]
    files += [str(share / "mirage_sim" / name) for name in names]
    ast.parse((share / "mirage_sim" / "launch" / "world.launch.py").read_text())
for name in files:
    if not Path(name).is_file():
        sys.exit(f"{name}: missing")
gymnasium.spec("MirageWorld-v0")
compose("rollout", ["memory=rgb"])
print("ok", root)  # noqa: T201
