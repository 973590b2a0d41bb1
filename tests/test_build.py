import json
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest
from support.toy_world import SIZE, toy_model

from mirage_sim.build import build_world_model, compose, instantiate
from mirage_sim.memory import EmptyMemory, PointMemory, RgbMemory
from mirage_sim.models import FlowSampler, save_model
from mirage_sim.paths import CONFIGS
from mirage_sim.settings import COMMANDS, WorldSettings
from mirage_sim.settings.fields import groups


@pytest.fixture(scope="module")
def toy_world(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides that make the mini world a toy one."""
    folder, model = tmp_path_factory.mktemp("weights"), toy_model()
    for name in ("codec", "denoiser", "depth"):
        save_model(getattr(model, name), folder / f"{name}.safetensors")
    paths = [f"world.{name}.path={folder / name}.safetensors" for name in ("codec", "denoiser", "depth")]
    return [*paths, f"world.size={list(SIZE)}", "latent.channels=8"]


def all_choices() -> Iterator[tuple[str, list[str]]]:
    for name, settings in {**COMMANDS, "world": WorldSettings}.items():
        if settings.positional:  # they need values
            continue
        yield name, []
        for field in groups(settings):
            for option in field.metadata["options"] or [path.stem for path in (CONFIGS / field.name).glob("*.yaml")]:
                yield name, [f"{field.name}={option}"]


@pytest.mark.parametrize(("name", "overrides"), sorted(all_choices()))
def test_every_choice_composes_to_settings_of_plain_values(name: str, overrides: list[str]) -> None:
    settings = compose(name, overrides)
    assert type(settings) is (COMMANDS | {"world": WorldSettings})[name]
    plain = settings.plain()
    assert json.loads(json.dumps(plain)) == plain
    assert "${" not in str(plain)
    assert type(settings).read(plain) == settings


@pytest.mark.parametrize(("option", "cls"), [("latent", PointMemory), ("rgb", RgbMemory), ("none", EmptyMemory)])
def test_memory_option_selects_the_class(toy_world: list[str], option: str, cls: type) -> None:
    model = build_world_model("mini", [*toy_world, f"memory={option}"])
    assert isinstance(model.memory, cls)
    assert model.size == SIZE
    assert model.memory.stride == model.codec.stride
    assert (model.reprojection is None) == (option == "none")


def test_the_rgb_memory_shares_the_codec(toy_world: list[str]) -> None:
    model = build_world_model("mini", [*toy_world, "memory=rgb"])
    assert isinstance(model.memory, RgbMemory)
    assert model.memory.codec is model.codec


def test_values_can_be_overridden(toy_world: list[str]) -> None:
    model = build_world_model("mini", [*toy_world, "world.sampler.steps=3", "memory.max_points=7"])
    assert len(model.sampler.sigmas) == 4
    assert isinstance(model.memory, PointMemory)
    assert model.memory.max_points == 7


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["memory=foo"], ["memory", "'foo'", "'latent', 'none', 'rgb'"]),
        (["nothing=1"], ["nothing", "'memory', 'world'"]),
        (["+nothing=1"], ["nothing", "'memory', 'world'"]),
        (["world.sampler.stepz=1"], ["world.sampler.stepz", "'shift', 'steps'"]),
        (["world.zap.k=1"], ["world.zap", "'sampler'"]),
        (["memory.tolerance=${nope}"], ["nope", "memory.tolerance"]),
        (["world=[1"], ["[1"]),
        (["=1"], []),
        (["~memory"], ["memory"]),
    ],
)
def test_bad_overrides_are_named_in_one_line(overrides: list[str], named: list[str]) -> None:
    with pytest.raises(ValueError) as error:
        compose("world", overrides)
    message = str(error.value)
    assert "\n" not in message
    for name in named:
        assert name in message


def test_unknown_worlds_and_configurations() -> None:
    with pytest.raises(ValueError, match=r"world: expected one of .*'mini'.*, got 'moon'"):
        build_world_model("moon")
    with pytest.raises(ValueError, match=r"command: expected one of .*'rollout'.*, got 'nope'"):
        compose("nope")
    with pytest.raises(ValueError, match="overrides: expected a list of strings"):
        compose("world", "memory=rgb")


def test_numbers_are_no_text_whatever_their_last_word() -> None:
    settings = compose("train", ["world=wan5b-toy", "stage=branch", "world.horizon.latents=4", "stage.latents=4"])
    assert settings.world["horizon"]["latents"] == 4 and settings.stage.latents == "4"
    assert compose("train", ["recipe=mini", "clips.homes.folder=a, b"]).clips["homes"].folder == "a, b"


def test_missing_weights_are_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.safetensors"):
        build_world_model("mini", ["world.codec.path=nowhere.safetensors"])


def test_callers_hydra_application_is_unchanged(tmp_path: Path) -> None:
    import hydra
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra

    ConfigStore.instance().store("stage", {"theirs": 1})
    stored = ConfigStore.instance().list("")
    (tmp_path / "app.yaml").write_text("answer: 42\n")
    with hydra.initialize_config_dir(str(tmp_path), version_base="1.2"):
        theirs = GlobalHydra.instance()
        assert compose("world").latent["channels"] == 16
        with pytest.raises(ValueError, match="unknown key"):
            compose("world", ["foo=1"])
        assert GlobalHydra.instance() is theirs and ConfigStore.instance().list("") == stored
        assert hydra.compose("app").answer == 42
    assert not GlobalHydra.instance().is_initialized()
    compose("world")
    assert not GlobalHydra.instance().is_initialized()


@pytest.mark.parametrize(
    "target",
    [
        "os.system",  # outside
        "mirage_simulator.thing",  # only looks like inside
        "mirage_sim.data.clips.os.getcwd",  # inside by name, reached through our import
        "mirage_sim.data.clips.load_file",
        "mirage_sim.build.instantiate",  # would take prefixes from the config
        "mirage_sim.nothing.at_all",
        "mirage_sim.world.NoSuchClass",
        "mirage_sim",
        17,
    ],
)
def test_targets_outside_are_refused(target: object) -> None:
    with pytest.raises(ValueError, match="_target_") as error:
        instantiate({"a": [{"_target_": target}]})
    assert repr(target) in str(error.value)


def test_nothing_is_built_before_all_targets_are_checked(tmp_path: Path) -> None:
    bystander = {"_target_": "mirage_sim.data.record.record", "output": str(tmp_path / "new"), "walks": 1}
    with pytest.raises(ValueError, match=r"os\.system"):
        instantiate([bystander, {"deep": {"_target_": "os.system", "command": "true"}}])
    assert not (tmp_path / "new").exists()


def test_callers_may_allow_prefixes() -> None:
    node = {"_target_": "fractions.Fraction", "numerator": 1, "denominator": 3}
    with pytest.raises(ValueError, match="_target_"):
        instantiate(node)
    assert instantiate(node, allow=("mirage_sim.", "fractions.")) == Fraction(1, 3)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"FlowSampler.*'stepz'.*\['steps', 'shift'\]"):
        instantiate({"_target_": "mirage_sim.models.FlowSampler", "stepz": 1})


def test_lists_become_tuples_and_equal_nodes_one_object() -> None:
    sampler = {"_target_": "mirage_sim.models.FlowSampler", "steps": 3}
    built = instantiate({"a": sampler, "b": [dict(sampler), 1], "c": {**sampler, "steps": 2}})
    assert isinstance(built["a"], FlowSampler)
    assert built["a"] is built["b"][0]
    assert built["a"] is not built["c"]
    assert isinstance(built["b"], tuple)


def test_mini_world_imports_no_unused_libraries() -> None:
    """What diffusers drags in beyond its basic blocks takes seconds, and first resets are waited for."""
    program = (
        "import sys; from mirage_sim.build import build_world_model; build_world_model(); "
        "heavy = ('transformers', 'diffusers.models.unets', 'cv2', 'matplotlib', 'peft', 'accelerate', 'ray'); "
        "scipy = [name for name in sys.modules if name.split('.')[:2] in "  # numba asks for its version, no more
        "(['scipy', part] for part in ('linalg', 'sparse', 'special', 'stats', 'spatial', 'ndimage'))]; "
        "print([name for name in heavy if name in sys.modules] + scipy)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_missing_device_is_refused() -> None:
    with pytest.raises(ValueError, match=r"device: expected one that torch can use, got 'cuda:77'"):
        build_world_model("mini", ["world.device=cuda:77"])


@pytest.mark.parametrize("overrides", [[], ["world.denoiser.branch=null", "world.device.branch=null"]])
def test_missing_mandatory_value_is_named(overrides):
    with pytest.raises(ValueError, match=r"^inject\.branch: expected a value, got none$"):
        compose("world", ["world=wan5b", "inject=branch", *overrides])
