"""``world="wan5b-toy"``: from files to frames through the same doors as any other world."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mirage_sim.build import build_world_model, compose
from mirage_sim.envs.vector_env import MirageWorldVectorEnv
from mirage_sim.models import save_model
from mirage_sim.models.wan.branch import MemoryBranch
from mirage_sim.models.wan.toy_checkpoint import toy_folder
from mirage_sim.world import WorldModel

AHEAD = np.array([1.0, 0.3], np.float32)


@pytest.fixture(autouse=True)
def cache(backbone_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(backbone_cache))


def test_toy_backbone_steps_by_name():
    env = gymnasium.make("MirageWorld-v0", world="wan5b-toy", render_mode="rgb_array")
    assert env.metadata["render_fps"] == 4.0
    first, info = env.reset(seed=0, options={"prompt": "a red room"})
    assert first.shape == (64, 96, 3) and info["frames"].shape == (4, 64, 96, 3) and info["time"] == 0.0
    seen = [first]
    for step in range(1, 6):
        frame, _, _, _, info = env.step(AHEAD)
        assert np.array_equal(frame, info["frames"][-1]) and np.array_equal(frame, env.render())
        assert info["time"] == pytest.approx(0.25 * step)
        seen += [*info["frames"]]
    assert len({frame.tobytes() for frame in seen}) == 21
    assert np.hypot(*info["c2w"][[0, 2], 3]) == pytest.approx(5 * 0.25 * 1.5, rel=0.05)
    other, _ = env.reset(seed=0, options={"prompt": "a green wood"})
    assert np.array_equal(other, first)
    assert not np.array_equal(env.step(AHEAD)[4]["frames"], seen[1:5])


def test_motion_scales_with_step_duration(backbone: WorldModel):
    model = build_world_model("wan5b-toy", ["world.horizon.keep=2"])
    env = gymnasium.make("MirageWorld-v0", world=model, action_mode="se3")
    env.reset(seed=0)
    *_, info = env.step(np.array([0, 0, 1, 0, 0, 0], np.float32))
    assert info["c2w"][2, 3] == pytest.approx(0.75, abs=1e-5) and info["time"] == 0.5


def test_snapshots_continue_bit_for_bit(backbone: WorldModel):
    env = gymnasium.make("MirageWorld-v0", world=backbone).unwrapped
    env.reset(seed=0)
    env.step(AHEAD)
    here, (fork,) = env.snapshot(), env.fork(1)
    onward = [env.step(AHEAD)[4]["frames"] for _ in range(2)]
    assert np.array_equal([fork.step(AHEAD)[4]["frames"] for _ in range(2)], onward)
    env.restore(here)
    assert np.array_equal([env.step(AHEAD)[4]["frames"] for _ in range(2)], onward)


def test_worlds_step_together_after_a_reset(backbone: WorldModel):
    env = MirageWorldVectorEnv(2, world=backbone, max_episode_steps=2, autoreset_mode="NextStep")
    env.reset(seed=[0, 1])
    for _ in range(3):
        frames, *_, info = env.step(np.stack([AHEAD, -AHEAD]))
        assert info["frames"].shape == (2, 4, 64, 96, 3) and np.array_equal(info["frames"][:, -1], frames)


def test_goal_task_runs_with_long_steps(backbone: WorldModel):
    env = gymnasium.make("MirageWorld-v0", world=backbone, task="goal", observation="dict")
    env.reset(seed=0, options={"goal": [0.0, 0.5]})
    *_, info = env.step(AHEAD)
    assert info["distance_to_goal"] < 0.5


def test_side_branch_is_loaded_from_a_file(backbone: WorldModel, tmp_path: Path):
    branch = MemoryBranch.beside(backbone.denoiser.backbone)
    with torch.no_grad():
        for parameter in branch.parameters():
            parameter += 0.05
    save_model(branch, tmp_path / "branch.safetensors", torch.float32)
    chosen = ["inject=branch", f"inject.branch={tmp_path / 'branch.safetensors'}"]
    model = build_world_model("wan5b-toy", chosen)
    assert model.sampler.replace is None and model.denoiser.branch is not None
    env = gymnasium.make("MirageWorld-v0", world=model)
    env.reset(seed=0)
    frames = env.step(AHEAD)[4]["frames"]
    silent = gymnasium.make("MirageWorld-v0", world=backbone)
    silent.reset(seed=0)
    assert frames.std() > 0 and not np.array_equal(frames, silent.step(AHEAD)[4]["frames"])
    with pytest.raises(ValueError, match="inject.branch: expected a value, got none"):
        build_world_model("wan5b-toy", ["inject=branch"])


def damage_shard(folder: Path) -> None:
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-64])


def lose_codec(folder: Path) -> None:
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()


def lie_about_layers(folder: Path) -> None:
    config = folder / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_layers": 5}))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (damage_shard, "transformer: expected a folder that holds a whole WanTransformer3DModel"),
        (lose_codec, "vae: expected a folder that holds a whole AutoencoderKLWan"),
        (lie_about_layers, "transformer: the weights do not fit the WanTransformer3DModel .* missing blocks.4"),
    ],
)
def test_damaged_weights_raise_one_clear_error(harm: Callable[[Path], None], message: str, tmp_path: Path):
    folder = shutil.copytree(toy_folder(), tmp_path / "weights")
    harm(folder)
    with pytest.raises(ValueError, match=message) as caught:
        build_world_model("wan5b-toy", [f"wan.folder={folder}"])
    assert "\n" not in str(caught.value)


def test_adapter_of_another_model_is_rejected(tmp_path: Path):
    path = tmp_path / "lora.safetensors"
    pair = {
        "blocks.40.attn1.to_q.lora_A.weight": torch.zeros(2, 32),
        "blocks.40.attn1.to_q.lora_B.weight": torch.zeros(32, 2),
    }
    save_file(pair, path)
    with pytest.raises(ValueError, match="expected an adapter for this backbone, got one for blocks.40.attn1.to_q"):
        build_world_model("wan5b-toy", [f"inject.lora={path}"])


def test_missing_weights_are_reported_before_loading(tmp_path: Path):
    message = "world: expected a machine that can run wan5b on cuda: weights missing .*: mirage download wan5b"
    with pytest.raises(ValueError, match=message):
        build_world_model("wan5b", [f"wan.folder={tmp_path}"])


@pytest.mark.parametrize("option", ["depth=mapanything", "depth=unidepth", "filter=movable", "filter=none"])
def test_options_of_wan5b_compose(option: str):
    world = compose("world", ["world=wan5b", option, "world.horizon.keep=4"]).world
    assert world["size"] == [704, 1280] and world["horizon"]["keep"] == 4
    assert world["depth"]["estimator"]["device"] == world["device"]
