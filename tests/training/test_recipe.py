"""The recipe end to end with toy networks within seconds, and its errors."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support.clips import write_clips
from support.toy_world import toy_model

from mirage_sim.build import build_world_model, compose
from mirage_sim.models import load_model, save_model
from mirage_sim.settings import RecipeSettings
from mirage_sim.training.recipe import seconds_of, train_recipe

NAMES = ("codec", "denoiser", "depth")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips, validation clips, photographs, and initial toy weights."""
    folder = tmp_path_factory.mktemp("sources")
    write_clips(folder / "clips")
    write_clips(folder / "clips" / "validation", count=2, frames=20)
    images = torch.randint(256, (5, 48, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    save_file({"images": images}, folder / "photographs.safetensors")
    model = toy_model()
    for name in NAMES:
        save_model(getattr(model, name), folder / "weights" / f"{name}.safetensors")
    return folder


def settings(sources: Path, output: Path, **changes: Any) -> RecipeSettings:
    composed: RecipeSettings = compose(
        "train",
        [
            "recipe=mini", "budget=5s", f"output={output}", f"from={sources}/weights", "validation.walks=0",
            f"clips.miniworld.folder={sources}/clips", "clips.miniworld.walks=0", "~clips.homes", "world.size=[48,64]",
            "latent.channels=8", f"photographs={sources}/photographs.safetensors",
            "recipe.codec.batch=4", "recipe.depth.batch=4", "recipe.denoiser.batch=6", "recipe.codec.gap=15",
            "recipe.depth.gap=15", "recipe.denoiser.steps_of_episode=[4,9]",
            *(f"recipe.shares.{part}=1" for part in ("record", "codec", "depth", "denoiser", "finish")),
        ],
    )  # fmt: skip
    return RecipeSettings.read(composed.plain() | changes)


class Killed(BaseException):
    pass


def killed(world: dict[str, Any], folder: Path) -> dict[str, Any]:
    raise Killed


@pytest.fixture(scope="module")
def output(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed in its last part and started again."""
    folder = tmp_path_factory.mktemp("run") / "out"
    with pytest.raises(Killed):
        train_recipe(settings(sources, folder), killed)
    before = json.loads((folder / "recipe.json").read_text())["parts"]
    worlds = []

    def evaluate(world: dict[str, Any], results: Path) -> dict[str, Any]:
        worlds.append(world)
        return {"psnr": 1.0}

    train_recipe(settings(sources, folder), evaluate, "abc")
    after = json.loads((folder / "recipe.json").read_text())["parts"]
    assert [after[name] for name in NAMES] == [before[name] for name in NAMES]  # nothing was trained again
    assert worlds[0]["codec"]["path"] == str(folder / "codec.safetensors")
    return folder


def test_recipe_exports_what_validation_chose(output: Path):
    parts = json.loads((output / "recipe.json").read_text())["parts"]
    assert list(parts) == ["record", "codec", "depth", "denoiser", "finish"]
    for name in NAMES:
        part = parts[name]
        assert part["steps"] > 0 and part["seconds"] >= part["limit"] >= 1
        assert part["scores"][part["chosen"]]["score"] == max(one["score"] for one in part["scores"].values())
        stage = "codec" if name == "denoiser" and part["chosen"] == "start" else name
        chosen = parts[stage]["chosen"]
        made = output / ("start" if chosen == "start" else f"{stage}/{chosen}") / f"{name}.safetensors"
        found, expected = load_model(output / f"{name}.safetensors"), load_model(made)
        for key, value in expected.state_dict().items():
            assert torch.equal(found.state_dict()[key], value), key
    assert parts["finish"]["protocols"] == {"psnr": 1.0}
    validation = parts["finish"]["validation"]
    assert parts["finish"]["worse_than_start"] == (validation["result"]["score"] < validation["start"]["score"])


def test_recipe_trains_every_network(sources: Path, output: Path):
    for stage, name in (("codec", "codec"), ("depth", "depth"), ("denoiser", "denoiser")):
        start = load_model(sources / "weights" / f"{name}.safetensors").state_dict()
        raw, average = (load_model(output / stage / each / f"{name}.safetensors") for each in ("raw", "average"))
        assert any(not torch.equal(value, start[key]) for key, value in raw.state_dict().items())
        assert any(not torch.equal(value, raw.state_dict()[key]) for key, value in average.state_dict().items())


def test_exported_weights_make_a_world(output: Path):
    paths = [f"world.{name}.path={output}/{name}.safetensors" for name in NAMES]
    model = build_world_model("mini", [*paths, "world.size=[48,64]", "latent.channels=8"])
    assert model.codec.channels == 8


def test_finished_recipe_trains_nothing(sources: Path, output: Path):
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file()}
    result = train_recipe(settings(sources, output), killed)
    assert set(result["chosen"]) == set(NAMES)
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file()} == before


def test_recipe_rejects_other_settings_in_same_folder(sources: Path, output: Path):
    before = (output / "recipe.json").read_bytes()
    with pytest.raises(ValueError, match="expected the settings in .*recipe.json, got another seed"):
        train_recipe(settings(sources, output, seed=1))
    assert (output / "recipe.json").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": "2 hours"}, "budget: expected a time such as 90s, 8m or 2h, got '2 hours'"),
        ({"budget": "3s"}, "budget: expected at least 5s, so that record gets 1 s, got 3s"),
        ({"device": "tpu"}, "device: expected one that torch can use, got 'tpu'"),
        ({"clips": {}}, "clips: expected one or more sources"),
        ({"clips": {"a": {"walks": 0}}}, "clips.a.folder: expected a value, got none"),
        (
            {"clips": {"a": {"folder": "nowhere", "walks": 0, "weight": 1, "first_seed": 0}}},
            "clips.a: expected clips in nowhere",
        ),
        ({"from": "nowhere"}, "nowhere.codec.safetensors: expected a weights file"),
        ({"photographs": "nowhere"}, "nowhere: expected photographs, images uint8 .*, got no such file"),
    ],
)
def test_recipe_rejects_bad_settings_before_it_writes(
    changes: dict[str, Any], message: str, sources: Path, tmp_path: Path
):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        train_recipe(settings(sources, tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


def test_recipe_rejects_photographs_of_another_size(sources: Path, tmp_path: Path):
    save_file({"images": torch.zeros(2, 48, 65, 3, dtype=torch.uint8)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"photographs: expected images uint8 \[N, 48, 64, 3\] in .* got \[2, 48, 65"):
        train_recipe(settings(sources, tmp_path / "out", photographs=str(tmp_path / "other.safetensors")))


def test_recipe_rejects_walks_of_another_size(sources: Path, tmp_path: Path):
    composed = settings(sources, tmp_path / "out", photographs=None)
    larger = replace(composed, world=composed.world | {"size": [96, 128]})
    with pytest.raises(ValueError, match=r"clips: expected frames of the world's size \(96, 128\), got \(48, 64\)"):
        train_recipe(larger)


def test_recipe_rejects_folder_with_other_files(sources: Path, output: Path, tmp_path: Path):
    (tmp_path / "depth").mkdir()
    with pytest.raises(
        ValueError, match="output: expected a new folder or one of this recipe, got .*, which has depth"
    ):
        train_recipe(settings(sources, tmp_path))
    (tmp_path / "recipe.json").write_text("{")
    with pytest.raises(ValueError, match="recipe.json: expected the state of a recipe in JSON"):
        train_recipe(settings(sources, tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["depth", "recipe.json"]


def test_budgets_convert_to_seconds():
    assert [seconds_of(text) for text in ("90s", "8m", "2h", "0.5h")] == [90, 480, 7200, 1800]
