"""Concurrent rollouts into one folder: one runs, the others are refused, and no file is lost or mixed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.rollouts import rollout_of

from mirage_sim.io import lock_folder

PROGRAM = """
import json, sys
from mirage_sim.agents.rollout import rollout
from mirage_sim.settings import RolloutSettings
config = json.loads(open(sys.argv[1]).read()) | json.loads(sys.argv[2])
try:
    rollout(RolloutSettings.read(config))
except ValueError as error:
    sys.exit(str(error))
"""


@pytest.mark.slow
@pytest.mark.parametrize("form", ["npz", "mcap"])
def test_one_of_two_concurrent_rollouts_is_refused(toy_config: dict[str, Any], tmp_path: Path, form: str) -> None:
    if form == "mcap":
        pytest.importorskip("rosbags", reason="rosbags is not installed")
    output = tmp_path / "output"
    few = {"policy": "random", "format": form, "episodes": 4, "steps": 3, "output": str(output)}
    (tmp_path / "config.json").write_text(json.dumps(toy_config | few))
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(tmp_path / "config.json"), json.dumps({"seed": seed})],
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in (0, 100)
    ]
    said = [process.communicate(timeout=120)[1].splitlines()[-1] for process in started]
    codes = [process.returncode for process in started]
    assert sorted(codes) == [0, 1], said
    assert said[codes.index(1)].startswith("output: expected a folder ")
    seeds = [json.loads(path.read_text())["seed"] for path in sorted((output / ".rollout").glob("episode_*.json"))]
    winner = 100 * codes.index(0)
    assert seeds == [winner, winner + 1, winner + 2, winner + 3]
    assert len([path for path in output.iterdir() if path.name.startswith("episode_")]) == 4
    assert not [path for path in output.rglob("*") if "partial" in path.name or path.name == "lock"]


def test_folder_of_a_running_rollout_is_refused_unchanged(toy_config: dict[str, Any], tmp_path: Path) -> None:
    few = {"policy": "random", "format": "npz", "steps": 2, "output": str(tmp_path / "output")}
    with lock_folder(tmp_path / "output", ".rollout/lock"):
        unfinished = tmp_path / "output" / ".partial0-episode_0001.npz"
        unfinished.touch()
        with pytest.raises(ValueError, match=rf"^output: expected .*, where process {os.getpid()} on .* is at work$"):
            rollout_of(toy_config | few)
        assert unfinished.exists()
    rollout_of(toy_config | few)
    assert not unfinished.exists(), "who left it is dead"
    assert (tmp_path / "output" / "episode_0000.npz").exists()


def test_partial_files_of_other_programs_are_kept(toy_config: dict[str, Any], tmp_path: Path) -> None:
    others = tmp_path / ".partial0-world.safetensors"
    others.touch()
    rollout_of(toy_config | {"policy": "random", "format": "npz", "steps": 2, "output": str(tmp_path)})
    assert others.exists()


@pytest.mark.parametrize("form", ["mp4", "npz"])
def test_unusable_folder_is_refused_before_any_episode(toy_config: dict[str, Any], tmp_path: Path, form: str) -> None:
    (tmp_path / "file").write_text("a file")
    nothing = {"image": "nowhere.png", "steps": 2}  # would be refused later
    for output in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nothing")):
        with pytest.raises(ValueError, match=f"^output: expected a folder that can be written to, got {output}: "):
            rollout_of(toy_config | nothing | {"policy": "random", "format": form, "output": str(output)})
