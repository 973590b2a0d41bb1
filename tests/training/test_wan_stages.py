"""Both stages of the Wan2.2 backbone at toy size, from clips to a rollout with the trained weights."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.clips import toy_clip

import mirage_sim  # noqa: F401  (registers the environment)
from mirage_sim.build import build_world_model, compose
from mirage_sim.data.clips import save_clip
from mirage_sim.models import load_model
from mirage_sim.models.wan.checkpoints import load_branch
from mirage_sim.settings import TrainSettings
from mirage_sim.training import train
from mirage_sim.training.train import build_stage

pytest.importorskip("peft")
pytest.importorskip("transformers")

SIZE = (64, 96)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for seed in range(2):
        save_clip(
            toy_clip(seed, 51, SIZE), folder / f"Box-{seed}.safetensors"
        )  # 13 latent frames; 2 frames are left over
    return folder


def config(clips: Path, output: Path, stage: str, *overrides: str) -> TrainSettings:
    quick = (
        "stage.steps=2",
        "stage.learning_rate=0.1",
        "stage.precision=float32",
        f"stage.latents={output / 'latents'}",
    )
    settings: TrainSettings = compose(
        "train", ["world=wan5b-toy", f"stage={stage}", f"clips={clips}", f"output={output}", *quick, *overrides]
    )
    return settings


@pytest.fixture(scope="module")
def trained(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("trained")
    train(config(clips, output, "branch", "stage.gradient_accumulation_steps=2"))
    train(config(clips, output, "lora", "stage.rank=3"))
    return output


@pytest.mark.slow
def test_two_processes_equal_two_accumulated_batches(clips: Path, tmp_path: Path) -> None:
    """Two processes of torch's launcher on the CPU, over gloo."""
    settings = ["stage.steps=2", "stage.learning_rate=0.1", "stage.precision=float32", f"clips={clips}"]
    settings += ["world=wan5b-toy", "stage=branch", f"stage.latents={tmp_path / 'latents'}"]
    launched = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    weights = {}
    for name, launcher, gradient_accumulation_steps in (
        ("one", [sys.executable], 2),
        ("two", launched, 1),
        ("half", [sys.executable], 1),
    ):
        output = [f"output={tmp_path / name}", f"stage.gradient_accumulation_steps={gradient_accumulation_steps}"]
        command = [*launcher, "-m", "mirage_sim.cli", "train", *settings, *output]
        environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
        subprocess.run(command, env=environment, check=True, timeout=200)
        weights[name] = load_file(tmp_path / name / "branch.safetensors")
    for key, expected in weights["one"].items():
        assert torch.equal(weights["two"][key], expected), key
    assert any(not torch.equal(weights["half"][key], expected) for key, expected in weights["one"].items())


def world(trained: Path, lora: bool) -> Any:
    name = "lora_branch" if lora else "branch"
    adapters = [f"inject.lora={trained / 'lora.safetensors'}"] if lora else []
    return build_world_model("wan5b-toy", ["inject=branch", f"inject.branch={trained / name}.safetensors", *adapters])


def test_trained_weights_drive_a_world(trained: Path) -> None:
    env = gymnasium.make("MirageWorld-v0", world=world(trained, lora=True))
    first, _ = env.reset(seed=0)
    for _ in range(5):
        frame, *_ = env.step(env.action_space.sample())
    assert frame.shape == (*SIZE, 3) and not np.array_equal(frame, first)
    env.close()


def test_exported_files_change_only_what_was_trained(trained: Path) -> None:
    public = build_world_model("wan5b-toy").denoiser.backbone
    stage1, stage2 = (world(trained, lora).denoiser for lora in (False, True))
    original = public.state_dict()
    assert all(torch.equal(tensor, original[name]) for name, tensor in stage1.backbone.state_dict().items())
    changed = {name for name, tensor in stage2.backbone.state_dict().items() if not torch.equal(tensor, original[name])}
    layers = ("to_q", "to_k", "to_v", "to_out.0")
    assert changed == {
        f"blocks.{block}.attn{kind}.{layer}.weight" for block in range(4) for kind in (1, 2) for layer in layers
    }
    adapters = load_file(trained / "lora.safetensors")
    assert adapters["blocks.0.attn1.to_q.lora_A.weight"].shape == (3, 32)
    hints = stage1.branch.vace_blocks[0].proj_out.weight
    assert hints.any()  # a fresh branch has zeros here
    assert not torch.equal(hints, stage2.branch.vace_blocks[0].proj_out.weight)  # stage 2 trained it further
    exported = load_file(trained / "branch.safetensors")
    assert all(torch.equal(tensor, exported[name]) for name, tensor in stage1.branch.state_dict().items())


def test_merged_adapters_equal_trained_adapters(clips: Path, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "branch.safetensors").write_bytes((trained / "branch.safetensors").read_bytes())
    cfg = config(clips, tmp_path, "lora", "stage.rank=3")
    stage = build_stage(cfg)
    adapters = load_file(trained / "lora.safetensors")
    denoiser = stage.modules["denoiser"]
    branch = load_branch(trained / "lora_branch.safetensors", denoiser.backbone)
    denoiser.branch.load_state_dict(branch.state_dict())
    for name, parameter in denoiser.backbone.named_parameters():
        if "lora_" in name:
            parameter.data.copy_(adapters[name.replace(".default", "")])
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        clean, conditioning = stage.objective.samples.draw(generator)
        sigma = torch.full((1, clean.shape[2]), 0.5)
        beside = denoiser.velocity(clean, sigma, denoiser.condition(conditioning))
        merged = world(trained, lora=True).denoiser
        torch.testing.assert_close(
            merged.velocity(clean, sigma, merged.condition(conditioning)), beside, atol=1e-4, rtol=1e-4
        )


def test_gradients_reach_only_branch_and_adapters(clips: Path, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "branch.safetensors").write_bytes((trained / "branch.safetensors").read_bytes())
    losses = []
    for gradient_checkpointing in (True, False):
        stage = build_stage(
            config(clips, tmp_path, "lora", "stage.rank=2", f"stage.gradient_checkpointing={gradient_checkpointing}")
        )
        terms = stage.objective(torch.Generator().manual_seed(5))
        terms["loss"].backward()
        losses.append(terms["loss"].item())
        for name, parameter in stage.modules["denoiser"].named_parameters():
            learns = name.startswith("branch.") or "lora_" in name
            assert parameter.requires_grad == learns, name
            assert (parameter.grad is not None) == learns, name
    assert losses[0] == losses[1]


def test_samples_hold_the_conditioning_of_a_rollout(clips: Path, tmp_path: Path) -> None:
    everything = ("stage.drop.text=0", "stage.drop.references=0", "stage.drop.preceding=0", "world.references.voxel=1")
    samples = build_stage(config(clips, tmp_path, "branch", *everything, "world.horizon.latents=4")).objective.samples
    seen = set()
    for draw in range(40):
        clean, conditioning = samples.draw(torch.Generator().manual_seed(draw))
        assert clean.shape == (1, 8, 4, 4, 6) and torch.equal(conditioning.first, clean[:, :, :1])
        count = conditioning.preceding.shape[2]
        assert conditioning.preceding_readout.shape == conditioning.preceding.shape and count <= 2
        # the memory holds the first frame, so all of its cells are visible
        assert conditioning.view.visible[0, 0].all()
        assert torch.equal(conditioning.motion[0, 0], torch.zeros(6))  # the chunk starts at the last generated frame
        seen.add((count, conditioning.references.shape[2] > 0))
    assert {0, 2} <= {count for count, _ in seen} and (2, True) in seen
    none = ("stage.drop.text=1", "stage.drop.references=1", "stage.drop.preceding=1")
    samples = build_stage(config(clips, tmp_path, "branch", *none, "world.horizon.latents=4")).objective.samples
    empty = samples.text.embed([""])
    for draw in range(12):
        _, conditioning = samples.draw(torch.Generator().manual_seed(draw))
        assert (
            conditioning.preceding.shape[2]
            == conditioning.references.shape[2]
            == conditioning.preceding_readout.shape[2]
            == 0
        )
        assert torch.equal(conditioning.text, empty)


def test_known_frames_do_not_affect_the_loss(clips: Path, tmp_path: Path) -> None:
    stage = build_stage(config(clips, tmp_path, "branch"))
    denoiser = stage.modules["denoiser"]
    inner = denoiser.velocity

    def corrupted(x: torch.Tensor, sigma: torch.Tensor, condition: Any) -> torch.Tensor:
        assert sigma[0, 0] == 0 and (sigma[0, 1:] == sigma[0, 1]).all() and torch.equal(x[:, :, :1], condition.first)
        velocity = inner(x, sigma, condition).clone()
        velocity[:, :, 0] = 1e6
        return velocity

    expected = stage.objective(torch.Generator().manual_seed(1))["loss"]
    denoiser.velocity = corrupted
    assert torch.equal(stage.objective(torch.Generator().manual_seed(1))["loss"], expected)


def test_bfloat16_loss_is_close_to_float32(clips: Path, tmp_path: Path) -> None:
    stage = build_stage(config(clips, tmp_path, "branch"))
    expected = stage.objective(torch.Generator().manual_seed(1))["loss"]
    with torch.autocast("cpu", torch.bfloat16):
        found = stage.objective(torch.Generator().manual_seed(1))["loss"]
    assert found.dtype == torch.float32 and found != expected
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0)


def test_bad_input_is_rejected(clips: Path, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"branch\.safetensors: expected a weights file"):
        build_stage(config(clips, tmp_path, "lora"))
    with pytest.raises(ValueError, match="world: expected one with a Wan backbone, such as wan5b, for stage=branch"):
        build_stage(replace(config(clips, tmp_path, "branch"), world=compose("world").world))
    with pytest.raises(ValueError, match="world: expected mini, which stage=codec trains"):
        build_stage(compose("train", ["world=wan5b-toy", "stage=codec", f"clips={clips}"]))
    for override, message in (
        ("stage.drop.text=2", "stage.drop.text: expected a number from 0 to 1, got 2"),
        ("stage.shift=0", "shift: expected a positive number, got 0"),
        ("stage.gradient_accumulation_steps=0", "gradient_accumulation_steps: expected a positive integer, got 0"),
        ("stage.precision=half", "precision: expected one of .*, got 'half'"),
        ("wan.dtype=bfloat16", "stage.precision: expected bfloat16 for a backbone of reduced precision"),
    ):
        with pytest.raises(ValueError, match=message):
            build_stage(config(clips, tmp_path, "branch", override))
    save_clip(toy_clip(0, 30, SIZE), tmp_path / "short" / "Box-0.safetensors")
    stage = build_stage(config(tmp_path / "short", tmp_path, "branch"))
    with pytest.raises(ValueError, match=r"Box-0\.safetensors: expected at least 9 latent frames, got 8"):
        stage.objective(torch.Generator())
    save_clip(toy_clip(0, 49, (48, 64)), tmp_path / "small" / "Box-0.safetensors")
    stage = build_stage(config(tmp_path / "small", tmp_path, "branch"))
    with pytest.raises(ValueError, match=r"expected images of \[64, 96\], got \[48, 64\]; resize the clips"):
        stage.objective(torch.Generator())
    with pytest.raises(ValueError, match="expected weights of one of"):
        load_model(trained / "branch.safetensors")  # not of the mini world
