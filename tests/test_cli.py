import json
import logging
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import mirage_sim
from mirage_sim import cli
from mirage_sim.build import compose
from mirage_sim.paths import CONFIGS
from mirage_sim.settings import COMMANDS, RecipeSettings, Settings
from mirage_sim.settings.fields import user_name
from mirage_sim.settings.training import LoraSettings


def test_help_lists_every_command_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    for name in COMMANDS:
        assert f"\n  {name.split()[0]} " in text
    for command in ("rollout", "train", "eval fidelity", "bench step"):
        assert COMMANDS[command].example in text
    assert "world=mini|wan5b|wan5b-toy" in text and "memory=compact|latent|none|rgb" in text
    assert str(CONFIGS.resolve()) in text


@pytest.mark.parametrize("name", COMMANDS)
def test_help_lists_every_setting_and_the_example_works(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    settings = COMMANDS[name]
    assert cli.main([*name.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert f"\n  {settings.example}\n" in text
    for field in fields(settings):
        if field.metadata:
            assert f"\n  {user_name(field)}" in text
    command, *words = [word for word in settings.example.replace("'", "").split()[1:] if word != "--json"]
    assert isinstance(compose(command, words), Settings)


def test_help_shows_type_default_range_and_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["record", "--help"]) == 0
    text = capsys.readouterr().out
    assert "  walks=1000  (a positive integer)\n      Number of walks, spread over" in text
    assert "  robot_share=0.0  (a number from 0 to 1)\n" in text
    assert cli.main(["train", "recipe=mini-gpu", "--help"]) == 0
    text = capsys.readouterr().out
    assert "  from=mini  (text or null)\n" in text and "        mini-gpu: For one GPU" in text
    assert "  recipe.codec.precision=auto  (one of" in text, "of the recipe, not of the stage alone"


def test_help_of_a_command_lists_its_variants(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["prepare", "--help"]) == 0
    text = capsys.readouterr().out
    for variant in ("vipe", "realestate10k", "clips", "photographs", "furniture"):
        assert f"\n  {variant}\n" in text
    assert cli.main(["fly", "--help"]) == 2


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["rollout", "stepz=3"], "stepz: expected one of"),
        (["rollout", "world=moon"], "world: expected one of ['mini', 'wan5b', 'wan5b-toy'], got 'moon'"),
        (["rollout", "steps=0"], "steps: expected a positive integer"),
        (["rollout", "world.codec.path=nowhere.safetensors"], "nowhere.safetensors"),
        (["rollout", "world.sampler._target_=os.system"], "_target_"),
        (["record", "walks=2", "first_seed=900000"], "seeds: expected within"),
        (["train", "clips=/nowhere"], "/nowhere"),
        (["eval", "fidelity", "walks=half"], "walks: expected one of"),
        (["eval", "revisit", "variants=[fog]"], "variants: expected some of"),
    ],
)
def test_bad_input_is_one_line_and_code_2(
    words: list[str], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = [] if words[0] == "train" else [f"output={tmp_path}"]
    assert cli.main([*words, *output]) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    line = streams.err.splitlines()[-1]
    assert line.startswith("mirage: error: ")
    assert named in line
    assert "Traceback" not in streams.err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], "expected a command"),
        (["fly"], "command: expected one of ['rollout', 'plan', "),
        (["eval"], "eval: expected one of ['fidelity', 'revisit', "),
        (["eval", "taste"], "got taste"),
        (["eval", "compare", "a.json"], "second: expected a value, got none"),
        (["eval", "report", "a", "b"], "eval report: expected FOLDER key=value ..., got 'b'"),
        (["rollout", "fast"], "rollout: expected key=value ..., got 'fast'"),
        (["bench", "step", "--fast"], "--fast"),
    ],
)
def test_bad_commands_are_one_line_and_code_2(words: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = cli.main(words)
    except SystemExit as end:
        code = end.code
    assert code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("mirage: error: ") and named in line


def test_json_is_alone_on_stdout(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def chatty(config: Any) -> dict[str, Any]:
        print("a library prints")  # noqa: T201
        logging.getLogger("mirage_sim").info("and we log")
        return {"marks": {"steps_per_s": 1.5, "asked": config.steps}, "more": [1]}

    monkeypatch.setitem(sys.modules, "benchmarks.step", SimpleNamespace(bench_step=chatty))
    for words in (["--json", "steps=7"], ["steps=7", "--json"]):
        assert cli.main(["bench", "step", *words]) == 0
        result = json.loads(capsys.readouterr().out)
        assert result["marks"] == {"steps_per_s": 1.5, "asked": 7}
        assert result["more"] == [1]
        assert result["cpu"].endswith("cores")
        assert result["commit"]
    assert cli.main(["bench", "step", "steps=7"]) == 0
    assert "steps_per_s" in capsys.readouterr().out


@pytest.fixture
def composed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Settings of commands, which do not run."""
    settings: list[Any] = []
    monkeypatch.setattr(cli, "run_command", lambda _, chosen: settings.append(chosen) or {})
    return settings


TEXTS = [
    "Küche.jpg",
    "IMG_0001 (1).jpg",
    "a=b.jpg",
    "a, b; c: d.jpg",
    "{x}[y](z).jpg",
    "${memory}.jpg",
    "\\${memory}\\\\.jpg",
    "it's 100 %.jpg",
    'a "quoted" word',
    " spaces ",
    "1",
    "true",
    "NULL",
    "./null",
    "",
    "+a",
    "~a",
    "a\nb",
]


@pytest.mark.parametrize("text", TEXTS)
def test_text_is_taken_literally(
    text: str, composed: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    texts = [f"{key}={text}" for key in ("image", "world.codec.path", "address", "output")]
    assert cli.main(["rollout", "backend=ray", *texts, f"policy={text}.zip", "steps=3"]) == 0
    (settings,) = composed
    found = settings.image, settings.world["codec"]["path"], settings.output, settings.policy.removesuffix(".zip")
    assert found == (text,) * 4
    assert settings.backend["address"] == text, "an interpolation of a text sees it"
    assert settings.steps == 3


def test_null_is_none_unless_a_file_has_that_name(
    composed: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["rollout", "image=null"]) == 0 and composed[-1].image is None
    (tmp_path / "null").touch()
    assert cli.main(["rollout", "image=null"]) == 2
    assert "image: expected ./null for the file of that name" in capsys.readouterr().err
    assert cli.main(["rollout", "image=./null"]) == 0 and composed[-1].image == "./null"


def test_other_settings_have_hydras_syntax(composed: list[Any]) -> None:
    words = ["rollout", "image='my photo.jpg'", "walk=2", "world.size=[48,64]", "memory=rgb", "output=a", "output=b"]
    assert cli.main(words) == 0
    settings = composed[-1]
    assert (settings.image, settings.walk, settings.world["size"]) == ("my photo.jpg", 2, [48, 64])
    assert settings.memory["_target_"].endswith("RgbMemory")
    assert settings.output == "b", "the last one counts"
    assert cli.main(["rollout", "walk=my walk (1).safetensors"]) == 0
    assert composed[-1].walk == "my walk (1).safetensors"
    assert cli.main(["prepare", "vipe", "source=films (2)"]) == 0
    assert composed[-1].source == "films (2)"
    assert cli.main(["eval", "fidelity", "cache=a, b", "output=null"]) == 0
    assert (composed[-1].cache, composed[-1].output) == ("a, b", None)


def test_a_variant_is_a_word_or_a_choice_at_any_place(composed: list[Any]) -> None:
    assert cli.main(["train", "budget=8m", "recipe=mini-gpu", "from=null"]) == 0
    settings = composed[-1]
    assert isinstance(settings, RecipeSettings)
    assert (settings.budget, settings.start, settings.device) == ("8m", None, "cuda")
    assert settings.recipe.denoiser.batch == 512 and settings.clips["homes"].weight == 1.0
    assert cli.main(["train", "world=wan5b", "stage=lora"]) == 0
    assert isinstance(composed[-1].stage, LoraSettings) and composed[-1].output == "checkpoints/wan5b"
    for words in (["a (1).json", "b.json"], ["second=b.json", "first=a (1).json"], ["second=b.json", "a (1).json"]):
        assert cli.main(["eval", "compare", *words]) == 0
        assert (composed[-1].first, composed[-1].second) == ("a (1).json", "b.json")


def test_image_path_may_have_any_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.full((96, 128, 3), 77, np.uint8)).save(tmp_path / "Küche=1 (2).png")
    words = ["rollout", "image=Küche=1 (2).png", "policy=random", "steps=1", "format=npz", "output=[a] {b}"]
    assert cli.main(words) == 0
    with np.load(tmp_path / "[a] {b}" / "episode_0000.npz") as episode:
        assert (episode["observations/rgb"][0] == 77).all()


@pytest.mark.parametrize(
    "words", [["record"], ["eval", "fidelity"], ["bench", "learn"], ["train"], ["prepare", "clips"], ["rollout"]]
)
def test_unusable_folders_are_refused_before_the_command(
    words: list[str], composed: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert cli.main([*words, f"output={tmp_path / 'file'}"]) == 2
    assert f"output: expected a folder that can be written to, got {tmp_path / 'file'}" in capsys.readouterr().err
    assert not composed


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_prints_json(name: str, composed: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert name in cli.RUN
    files = ["a", "b"][: len(COMMANDS[name].positional)]
    output = ["output=place.world"] if name == "recording import" else []
    assert cli.main([*name.split(), *files, *output, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cpu"].endswith("cores")


def test_doctor_json_equals_its_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert cli.main(["doctor"]) == 0
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert found["torch"] == lines["torch"] and set(lines) <= set(found)


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"mirage_sim {mirage_sim.__version__}\n"


def test_commit_is_from_git_or_the_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirage_sim, "__file__", str(tmp_path / "mirage_sim" / "__init__.py"))
    assert cli.commit() == f"v{mirage_sim.__version__}"
    run = {"cwd": tmp_path, "check": True, "capture_output": True}
    subprocess.run(["git", "init", "-q"], **run)
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.invalid"]
    subprocess.run(["git", *identity, "commit", "-q", "--allow-empty", "-m", "x"], **run)
    head = subprocess.run(["git", "rev-parse", "HEAD"], **run).stdout.decode().strip()
    assert head.startswith(cli.commit())
    assert len(cli.commit()) == 12


IMPORT = "import sys, mirage_sim; print(*sys.modules)"


def test_import_loads_nothing_heavy() -> None:
    """How long it takes is measured by ``mirage bench step``."""
    loaded = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True).stdout.split()
    assert "mirage_sim" in loaded
    assert not {"torch", "diffusers", "hydra", "cv2", "PIL", "miniworld"} & set(loaded)


@pytest.mark.parametrize(
    ("given", "wanted"), [({}, "10000"), ({"GOMP_SPINCOUNT": "77"}, "77"), ({"OMP_WAIT_POLICY": "passive"}, "0")]
)
def test_openmp_spins_briefly_unless_the_user_decides(given: dict[str, str], wanted: str) -> None:
    others = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    program = "import mirage_sim, torch"
    environment = {**others, **given, "OMP_DISPLAY_ENV": "verbose"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    if "GOMP_SPINCOUNT" not in done.stderr:
        pytest.skip("torch brings no OpenMP that tells how long it spins")
    assert f"GOMP_SPINCOUNT = '{wanted}'" in done.stderr


@pytest.mark.parametrize(
    "lines",
    [
        "import mirage_sim, gymnasium; gymnasium.spec('MirageWorld-v0')",
        "import gymnasium, mirage_sim; gymnasium.spec('MirageWorld-v0')",
    ],
)
def test_importing_registers_the_environments(lines: str) -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", lines], check=True)


def test_public_names_are_imported_lazily() -> None:
    for name in mirage_sim.__all__:
        assert getattr(mirage_sim, name)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        mirage_sim.nothing  # noqa: B018


def test_module_runs_as_the_command() -> None:
    command = [sys.executable, "-m", "mirage_sim.cli", "rollout", "stepz=1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("mirage: error: stepz")
