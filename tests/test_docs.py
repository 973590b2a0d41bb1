"""Every command of README and docs runs as written, with the smaller settings of :data:`SMALLER`."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import gymnasium
import numpy as np
import pytest
from PIL import Image
from support.clips import write_clips
from support.recordings import toy_frames, write_tum
from support.videos import write_lerobot, write_realestate10k, write_vipe

from benchmarks import backbone, readout, runner, step
from mirage_sim import cli
from mirage_sim.data.simulators.miniworld import MiniWorldSimulator
from mirage_sim.evaluation.manifest import Manifest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
pytestmark = pytest.mark.skipif(not PAGES[0].exists(), reason="needs the checkout")

ONE_STEP = "stage.steps=1 stage.batch=1"
MAKE = f"VENV={sys.prefix} -o {sys.prefix}/.core -o {sys.prefix}/.test -o lint"  # the installation is up to date

EVALUATIONS = (
    "fidelity output=outputs/a",
    "fidelity walks=full output=outputs/a",
    "revisit output=outputs/a",
    "revisit",
)

#: Settings added to a command so that it takes seconds. All other commands run unchanged.
SMALLER = {
    "make demo": MAKE,
    "make test": f"{MAKE} PYTEST_ADDOPTS='-k import_loads_nothing {ROOT}/tests/test_cli.py'",
    "make check": f"{MAKE} -n",  # the same
    "make test-fast": f"{MAKE} -n",
    "make test-slow": f"{MAKE} -n",  # this test is one of them
    "make soak": f"{MAKE} SOAK_SECONDS=2",
    "mirage rollout policy=scripted steps=200 seed=3": "steps=3",
    "mirage rollout policy=random format=npz episodes=10 output=data": "episodes=2 steps=2",
    "mirage rollout policy=random format=minari episodes=10 output=data": "episodes=2 steps=2",
    "mirage rollout policy=random format=lerobot episodes=10 output=data/lerobot": (
        "episodes=2 steps=2 output=data/lerobot-again"  # the fixture has made data/lerobot
    ),
    "mirage rollout policy=random format=mcap episodes=10 output=data": "episodes=2 steps=2",
    "mirage rollout backend=ray num_workers=2 worlds=4 policy=random format=npz episodes=64 output=data/ray": (
        "num_workers=1 worlds=1 episodes=2 steps=2"
    ),
    "mirage rollout policy=policy.zip trust_policy=true": "steps=2",
    "mirage rollout start=lab.world policy=scripted steps=100 output=outputs/lab": "steps=2",
    **{f"mirage eval {what} --json": "variants=[latent_memory]" for what in EVALUATIONS},
    "mirage plan episodes=8 output=outputs/plan --json": "episodes=1 steps=2",
    "mirage eval counterfactual --json": "scenes=1",
    "mirage eval calibration --json": "scenes=1",
    "mirage bench learn --json": "steps=16 seeds=1 episodes=1 max_episode_steps=2 worlds=2",
    "mirage bench step --json": "steps=2 rgb_steps=1",
    "mirage bench ros --json": "steps=5 frames=5 seconds=1",
    "mirage bench readout --json": "threads=[1]",
    "mirage bench growth --json": "cameras=2 rounds=2",
    "mirage bench fork --json": "points=20000 forks=2",
    "mirage bench retrieval --json": "frames=4 repeats=1",
    "mirage bench simulators --json": "homes=procedural scenes=1 frames=2",
    "mirage bench bytes --json": "frames=1",
    "mirage bench conditioning --json": "size=[64,96]",
    "mirage bench backbone --json": "vae=null",
    "mirage bench all": "benchmarks=[retrieval]",
    "mirage bench vector --json": "worlds=2 steps=1",
    "mirage record walks=1200 output=data/clips": "walks=1 frames=28",
    "mirage train world=mini stage=codec": ONE_STEP,
    "mirage prepare vipe source=data/films output=data/clips": (
        "size=[48,64] frames=17 output=data/vipe-clips"  # another page records walks into data/clips
    ),
    "mirage prepare vipe source=data/vipe output=data/clips": "size=[48,64] frames=17",
    "mirage prepare realestate10k source=data/re10k output=data/clips": "size=[48,64] frames=17",
    "mirage prepare lerobot source=data/lerobot/rollout-v0 output=data/episodes 'size=[96,128]' fps=10 frames=40": (
        "size=[48,64] frames=17"
    ),
    "mirage prepare clips source=data/miniworld output=data/small 'size=[64,96]' frames=49": "size=[48,64] frames=17",
}
#: Commands that start processes, or take long with small settings too. Their tests are marked slow.
SLOW = (
    "make",
    "mirage_world",
    "mirage_policy",
    "mirage rollout backend=ray",
    "mirage bench ros",
    "mirage eval counterfactual",
    "mirage eval calibration",
)
SHADOW = (
    "mirage_world --ros-args -p observe:=true -r robot/image_raw:=/front/image_raw "
    "-r robot/camera_info:=/front/camera_info"
)
NODES = ["mirage_world", "mirage_policy", SHADOW]

WEIGHTS = "needs the weights of Wan2.2 and a GPU"
FURNITURE = "needs furniture, a download of 120 MB; tests/data/simulators/homes has procedural pieces"
RECIPE = "minutes at least; tests/training/test_recipe.py trains toy networks for seconds"
#: Beginnings of commands that cannot run in a test, and why. The longest match counts.
CANNOT = {
    "colcon build": "colcon is not available as a wheel; tests/packaging builds with it",
    "ros2 launch": "ros2 launch is not available as a wheel; tests/ros runs what the launch file starts",
    "mirage download": "needs a hub",
    "mirage rollout world=wan5b": WEIGHTS,
    "mirage train world=wan5b": WEIGHTS,
    "accelerate launch": f"{WEIGHTS}; several of them",
    "accelerate config": "is interactive",
    "mirage rollout backend=ray address=HOST:6379": "needs a cluster at HOST",
    "mirage bench rollout": "takes minutes; tests/agents/test_backends.py does the same with few episodes",
    "python -c": "renders all shipped images, which takes minutes; tests/data renders some",
    'env = gym.make("MirageWorld-v0", world="wan5b")': WEIGHTS,
    "mirage prepare furniture": FURNITURE,
    "mirage prepare photographs": "needs Debian's wallpaper packages; tests/data/test_photographs.py makes some",
    "mirage record simulator=homes": FURNITURE,
    "mirage eval fidelity protocol=homes": FURNITURE,
    "mirage eval collision protocol=homes": FURNITURE,
    "mirage eval collision recording=": FURNITURE,
    "mirage eval recording data/homes": FURNITURE,
    "mirage eval counterfactual protocol=homes": FURNITURE,
    "mirage eval calibration protocol=homes": FURNITURE,
    "mirage train recipe=": RECIPE,
    "use()": RECIPE,
    "mirage eval fidelity walks=quick $(use": RECIPE,
    "mirage rollout policy=replay $(use": RECIPE,
}
#: Optional libraries, by a part of the commands that need them.
NEEDS = {
    "backend=ray": "ray",
    "bench ros": "rclpy",
    "soak": "rclpy",
    "mirage_": "rclpy",
    "policy.zip": "stable_baselines3",
    "envs.sb3": "stable_baselines3",
    "bench learn": "stable_baselines3",
    "bench backbone": "transformers",
    "format=minari": "minari",
    "lerobot": "pyarrow",
    "format=mcap": "rosbags",
    "mirage train": "accelerate",
    "eval report": "matplotlib",
    "eval photos": "skimage",
    "bench simulators": "moderngl",
}
#: `make test-packaging` tests installation.
INSTALLS = ("pip install",)


class Block(NamedTuple):
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """The commands of the block, without comments."""
        lines = [line.split("  #")[0].strip() for line in self.text.splitlines()]
        lines = [line.partition(" # ")[0].strip() for line in lines]
        return [command for line in lines for command in line.split(" && ") if command]


def blocks() -> list[Block]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8") if page.exists() else ""
        for match in re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            found.append(Block(page, text.count("\n", 0, match.start()) + 1, match.group(1), match.group(2)))
    return found


def reason(command: str) -> str | None:
    """Return why a command cannot run in a test, or None if it can."""
    found = [start for start in CANNOT if command.startswith(start) and not command.startswith(f"{start}-")]
    return CANNOT[max(found, key=len)] if found else None


def lacking(command: str) -> list[str]:
    """Return the libraries that a command needs and that are not installed."""
    return [library for part, library in NEEDS.items() if part in command and not find_spec(library)]


SHELL = [block for block in blocks() if block.language == "sh"]
PYTHON = [block for block in blocks() if block.language == "python"]
COMMANDS = {  # command: the first block that has it
    command: block
    for block in reversed(SHELL)
    for command in block.commands
    if not command.startswith((*INSTALLS, "source ")) and reason(command) is None
}
QUICK = [command for command in COMMANDS if not command.startswith(SLOW)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the files that the pages assume: a photograph, videos, recorded walks, a recording, a policy."""
    folder = tmp_path_factory.mktemp("reader")
    photograph = np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8).repeat(20, 0).repeat(20, 1)
    Image.fromarray(photograph).save(folder / "kitchen.jpg")
    for source in ("films", "vipe"):
        write_vipe(folder / "data" / source)
    write_realestate10k(folder / "data" / "re10k")
    write_clips(folder / "data" / "miniworld", 1)
    write_tum(folder / "data" / "recording", toy_frames(43))  # 2 s are held out after each 4
    write_lerobot(folder / "data" / "lerobot" / "rollout-v0")
    if find_spec("stable_baselines3"):
        from mirage_sim.envs.sb3 import PPO

        PPO("CnnPolicy", gymnasium.make("MirageWorld-v0"), n_steps=2, batch_size=2).save(folder / "policy.zip")
    return folder


@pytest.fixture
def reader(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to the folder of a reader, and reduce walks, circuits and points, which no setting can."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # for subprocesses
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(step, "_seconds_of", cache(step._seconds_of))
    run_bench = runner.run_in_process
    monkeypatch.setattr(runner, "run_in_process", lambda name: run_bench(name, "frames=4", "repeats=1"))
    for minutes in ("resume_identical", "stage1_loss_drop"):  # tests/benchmarks/test_backbone.py has them
        monkeypatch.setattr(backbone, minutes, lambda: 0.0)
    subset, cloud, hall = Manifest.subset, readout._cloud, readout.hall

    def one_of_each(self: Manifest, name: str) -> Manifest:
        chosen = subset(self, name)
        return replace(chosen, walks=chosen.walks[:1], circuits=chosen.circuits[:1])

    monkeypatch.setattr(Manifest, "subset", one_of_each)
    monkeypatch.setattr(readout, "_cloud", lambda count, channels=48: cloud(min(count, 60_000), channels))
    monkeypatch.setattr(readout, "hall", lambda count, channels: hall(min(count, 60_000), channels))
    return folder


def run(command: str, reader: Path) -> None:
    """Run a command and check that it succeeds."""
    command = f"{command} {SMALLER.get(command, '')}"
    for name in ("a.json", "b.json", "outputs/b/fidelity.json"):  # results of earlier runs
        if name in command:
            (reader / name).parent.mkdir(exist_ok=True)
            shutil.copy(reader / "outputs" / "a" / "fidelity.json", reader / name)
    words = shlex.split(command)
    if words[0] == "mirage" and not command.startswith(SLOW):
        try:
            assert cli.main(words[1:]) == 0
        except SystemExit as end:
            assert end.code == 0
        return
    if words[0] == "make":
        words[1:1] = ["-f", str(ROOT / "Makefile")]
        for name in ("setup.py", "benchmarks", "mirage_sim", "tests"):
            if not (reader / name).exists():
                (reader / name).symlink_to(ROOT / name)
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def marked(example: Block | str) -> object:
    """Return a parameter of a test, marked as what the commands need."""
    commands = example.commands if isinstance(example, Block) else [example]
    renders = any(word in command for word in ("eval", "record", "bytes", "simulators") for command in commands)
    ros = any(word in command for word, library in NEEDS.items() if library == "rclpy" for command in commands)
    return pytest.param(example, id=str(example), marks=[pytest.mark.gl] * renders + [pytest.mark.ros] * ros)


def require_miniworld() -> None:
    """Skip the test where MiniWorld or EGL is missing."""
    try:
        MiniWorldSimulator("OneRoom").close()
    except ImportError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("block", [marked(block) for block in SHELL])
def test_commands_of_block_run(
    block: Block, reader: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    if request.node.get_closest_marker("gl"):
        require_miniworld()
    capsys.readouterr()  # discard what MiniWorld prints
    for command in block.commands:
        if command in QUICK and COMMANDS[command] == block and not lacking(command):
            run(command, reader)
            output = capsys.readouterr().out
            assert "--json" not in command or json.loads(output), command


@pytest.mark.slow
@pytest.mark.parametrize("command", [marked(command) for command in COMMANDS if command not in QUICK + NODES])
def test_slow_command_runs(command: str, reader: Path) -> None:
    if missing := lacking(command):
        pytest.skip(f"not installed: {missing}")
    run(command, reader)


@pytest.mark.slow
@pytest.mark.ros
def test_world_and_policy_nodes_exchange_messages(reader: Path) -> None:
    if missing := lacking("mirage_world"):
        pytest.skip(f"not installed: {missing}")
    from benchmarks.ros_process import NodeProcess, private_domain

    assert set(NODES) <= set(COMMANDS)
    domain = private_domain()
    world, policy, shadow = (NodeProcess(domain, shlex.split(command)) for command in NODES)
    with world, policy:
        world.wait_for_line("runs, mode")
        policy.wait_for_line("waiting for images")
        assert policy.stop() == world.stop() == 0
    with shadow:
        shadow.wait_for_line("runs, mode")
        assert shadow.stop() == 0


@pytest.mark.parametrize("page", sorted({block.page for block in PYTHON}), ids=lambda page: page.name)
def test_programs_of_page_run(page: Path, reader: Path) -> None:
    names: dict[str, object] = {}
    for block in PYTHON:
        if block.page == page and not any(start in block.text for start in CANNOT) and not lacking(block.text):
            exec(compile(block.text, str(block), "exec"), names)
    assert names or page.name == "wan5b.md"


def test_exceptions_name_existing_commands() -> None:
    every = [command for block in SHELL for command in block.commands] + [block.text for block in PYTHON]
    assert [start for start in CANNOT if not any(start in command for command in every)] == []
    assert [command for command in SMALLER if command not in COMMANDS] == []


def test_installed_extras_exist() -> None:
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    installs = [c for block in SHELL for c in block.commands if c.startswith(INSTALLS)]
    extras = {extra for command in installs for extra in re.search(r"\[(.*)\]", command).group(1).split(",")}  # type: ignore[union-attr]
    assert extras and all(f'"{extra}":' in setup for extra in extras)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_inline_commands_compose(page: Path) -> None:
    """Commands in backquotes are not run, but their settings must exist."""
    for command in re.findall(r"`mirage ((?:\w+)(?: [\w.=/]+)*(?: --json)?)`", page.read_text(encoding="utf-8")):
        words = [word for word in command.split() if word != "--json"]
        words = [word for word in words if not word.partition("=")[2].isupper()]  # placeholders, as in output=FOLDER
        assert cli.help_text(words), command
        if len(words) > 1 and "report" not in command and "compare" not in command:
            cli.compose(words[0], words[1:])
