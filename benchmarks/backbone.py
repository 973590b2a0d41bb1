"""The real backbone without its weights: size, names of published weights, a toy walk, training and codec cost."""

import dataclasses
import multiprocessing
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from safetensors import SafetensorError, safe_open
from torch import nn

from mirage_sim.build import compose
from mirage_sim.data.prepare import prepare
from mirage_sim.geometry import Camera
from mirage_sim.models import MiniCodec
from mirage_sim.models.checkpoints import read_weights
from mirage_sim.models.wan import published
from mirage_sim.models.wan.branch import MemoryBranch
from mirage_sim.models.wan.checkpoints import diffusers_name
from mirage_sim.models.wan.codec import AutoencoderKLWan, WanCodec, published_config
from mirage_sim.models.wan.denoiser import WanDenoiser
from mirage_sim.paths import ASSETS
from mirage_sim.protocols import Conditioning, MemoryView
from mirage_sim.settings import TrainSettings
from mirage_sim.settings.benchmarks import BackboneBenchSettings
from mirage_sim.training.loop import Objective, Trainer
from mirage_sim.training.objectives.chunk import ChunkObjective
from mirage_sim.training.train import build_stage

CHANNELS, FRAMES, GRID, TEXT = 8, 9, (6, 10), 64  # of the toy backbone
TOY = {
    "num_attention_heads": 4,
    "attention_head_dim": 32,
    "in_channels": CHANNELS,
    "out_channels": CHANNELS,
    "text_dim": TEXT,
    "freq_dim": 64,
    "ffn_dim": 512,
    "num_layers": 6,
}

WALKS = ASSETS / "mini" / "walks"  # both trainings use the walks that the package ships
CLIP_SIZE, CLIP_FRAMES = [64, 96], 25
STEPS, LEARNING_RATE, DRAWS = 150, 3e-3, 32
# the interrupted run is killed once KILLED steps are on disk
RESUMED = ("stage=denoiser", "stage.steps=6", "stage.batch=3", "stage.steps_of_episode=[3,5]", "save_every=0")
KILLED = 2

VAE_SIZE, VAE_FRAMES = (704, 1280), 5
TILE = (44, 46)  # two windows side by side: a sixth more work than the whole image at once, but less memory
GIB = 2**30


def bench_backbone(settings: BackboneBenchSettings) -> dict[str, Any]:
    """Run the benchmark.

    Args:
        settings: of the benchmark.

    Returns:
        ``{"marks": ...}``: ``params_b`` and ``side_branch_b``, billions of parameters at full size; ``keys_unmatched``,
        see :func:`keys_unmatched`; ``zero_branch_max_diff``, see :func:`fresh_branch_difference`; ``toy_chunks``, see
        :func:`toy_chunks`; ``toy_stage1_loss_drop``, see :func:`stage1_loss_drop`; ``resume_identical``, see
        :func:`resume_identical`; and the metrics of :func:`codec_cost` unless ``vae`` is None.

    Raises:
        ValueError: for an unknown ``vae``.
        ImportError: if the libraries that load the toy world are not installed.
    """
    with torch.device("meta"):
        backbone = WanTransformer3DModel(**published.config())
    branch = MemoryBranch.beside(backbone)
    metrics: dict[str, Any] = {
        "params_b": round(_parameters(backbone) / 1e9, 4),
        "side_branch_b": round(_parameters(branch) / 1e9, 4),
        "keys_unmatched": keys_unmatched(backbone, branch),
        "zero_branch_max_diff": fresh_branch_difference(),
        "toy_chunks": toy_chunks(),
        "toy_stage1_loss_drop": round(stage1_loss_drop(), 3),
        "resume_identical": resume_identical(),
    }
    return {"marks": metrics | (codec_cost(settings.vae == "decode") if settings.vae else {})}


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def keys_unmatched(backbone: nn.Module, branch: nn.Module) -> int:
    """Count the names with shapes, of published weights (backbone, branch, adapters) or ours, that have no match."""
    ours = [{(name, tuple(tensor.shape)) for name, tensor in part.state_dict().items()} for part in (backbone, branch)]
    theirs = [_renamed(published.shapes("backbone")), _renamed(published.shapes("branch"))]
    layers = _renamed({f"{name}.weight": shape for name, shape in published.shapes("lora").items()})
    unmatched = sum(len(a ^ b) for a, b in zip(ours, theirs, strict=True)) + len(layers - ours[0])
    total = sum(len(published.shapes(part)) for part in ("backbone", "branch", "lora"))
    return unmatched + total - sum(map(len, (*theirs, layers)))  # renaming may have merged two names


def _renamed(shapes: published.Shapes) -> set[tuple[str, tuple[int, ...]]]:
    return {(diffusers_name(name), shape) for name, shape in shapes.items()}


@torch.no_grad()
def fresh_branch_difference() -> float:
    """Largest change of the toy backbone's output by a fresh side branch, with and without context frames.

    Without context frames, the output is compared with that of diffusers' own forward pass.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = WanTransformer3DModel(**TOY).eval()
        codec = MiniCodec(CHANNELS, encoder_width=16, encoder_depth=1, decoder_width=16, decoder_depth=1).eval()
        denoiser = WanDenoiser(backbone, MemoryBranch.beside(backbone), codec)
        x, sigma = torch.randn(1, CHANNELS, FRAMES, *GRID), torch.rand(1, FRAMES)
        without, within = _conditioning(0, 0), _conditioning(3, 2)
    timestep = (1000 * sigma).repeat_interleave(GRID[0] * GRID[1] // 4, dim=1)
    (expected,) = backbone(x, timestep, without.text, return_dict=False)
    alone = WanDenoiser(backbone)
    differences = (
        denoiser.velocity(x, sigma, denoiser.condition(without)) - expected,
        denoiser.velocity(x, sigma, denoiser.condition(within)) - alone.velocity(x, sigma, alone.condition(within)),
    )
    return float(torch.stack([difference.abs().max() for difference in differences]).max())  # NaN stays NaN


def _conditioning(references: int, preceding: int) -> Conditioning:
    """Random conditioning in which every cell is remembered."""
    shape = (1, FRAMES, *GRID)
    view = MemoryView(
        latents=torch.randn(1, CHANNELS, *shape[1:]),
        visible=torch.ones(shape, dtype=torch.bool),
        depth=torch.ones(shape),
        source=torch.zeros(shape, dtype=torch.int64),
        offset=torch.zeros(1, 2, *shape[1:]),
        log_scale=torch.zeros(shape),
    )
    return Conditioning(
        view=view,
        preceding=torch.randn(1, CHANNELS, preceding, *GRID),
        motion=torch.zeros(1, FRAMES, 6),
        camera=Camera.from_fov(torch.eye(4).expand(1, FRAMES, 4, 4), 60.0, GRID),
        references=torch.randn(1, CHANNELS, references, *GRID),
        text=torch.randn(1, 16, TEXT),
    )


def toy_chunks(steps: int = 5) -> int:
    """Count the steps of ``world=wan5b-toy`` that show a new image while the memory does not shrink."""
    env = gymnasium.make("MirageWorld-v0", world="wan5b-toy")
    last, info = env.reset(seed=0)
    points, count = info["memory_points"], 0
    for _ in range(steps):
        image, *_, info = env.step(np.array([1.0, 0.5], np.float32))
        count += bool((image != last).any() and info["memory_points"] >= points > 0)
        last, points = image, info["memory_points"]
    return count


def stage1_loss_drop() -> float:
    """Fraction by which training stage 1 at toy size lowers the loss on a held-out walk.

    The loss is the mean over the same 32 chunks before and after 150 steps on two other walks.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = compose("prepare clips", [f"source={WALKS}", f"output={folder / 'clips'}"])
        prepare(dataclasses.replace(clips, size=CLIP_SIZE, frames=CLIP_FRAMES))
        first, *_ = sorted((folder / "clips").iterdir())
        (folder / "held").mkdir()
        held_out = first.replace(folder / "held" / first.name)
        stage = build_stage(_branch_config(folder, folder / "clips"))
        others: Any = build_stage(_branch_config(folder, held_out.parent)).objective
        held = ChunkObjective(stage.modules["denoiser"], others.samples)  # type: ignore[arg-type]
        before = _mean_loss(held)
        trainer = Trainer(
            stage.modules, folder / "branch", steps=STEPS, learning_rate=LEARNING_RATE, accelerator=stage.accelerator
        )
        trainer.run(stage.objective)
        trainer.use_ema()
        return 1.0 - _mean_loss(held) / before


def _branch_config(folder: Path, clips: Path) -> TrainSettings:
    quick = ("stage.precision=float32", "stage.gradient_checkpointing=false", f"stage.latents={folder / 'latents'}")
    # the walks are shorter than a chunk of the real backbone
    world = ("world=wan5b-toy", "world.horizon.latents=5")
    settings: TrainSettings = compose("train", ["stage=branch", *world, f"clips={clips}", f"output={folder}", *quick])
    return settings


@torch.no_grad()
def _mean_loss(objective: Objective) -> float:
    return sum(objective(torch.Generator().manual_seed(draw))["loss"].item() for draw in range(DRAWS)) / DRAWS


def resume_identical() -> bool:
    """Whether a training of mini's denoiser that is killed and continued ends with the bits of an undisturbed one.

    Compares the final weights and the whole training state, including the episodes in progress.

    Raises:
        RuntimeError: if a run fails, or ends before it can be killed.
    """
    with tempfile.TemporaryDirectory() as name:
        straight, killed = Path(name) / "straight", Path(name) / "killed"
        for folder in (straight, killed):
            folder.mkdir()
            for part in ("codec", "denoiser", "depth"):
                shutil.copy(ASSETS / "mini" / f"{part}.safetensors", folder)
        _finish(_start(straight))
        _kill(_start(killed), killed / "denoiser" / "state.safetensors")
        _finish(_start(killed))
        return all(
            _same(straight / file, killed / file) for file in ("denoiser.safetensors", "denoiser/state.safetensors")
        )


def _start(output: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "mirage_sim.cli", "train", *RESUMED, f"clips={WALKS}", f"output={output}"]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def _finish(process: "subprocess.Popen[str]") -> None:
    _, stderr = process.communicate()
    if process.returncode:
        raise RuntimeError(f"mirage train: {stderr.strip().splitlines()[-1]}")


def _kill(process: "subprocess.Popen[str]", state: Path) -> None:
    """Kill a run once its state holds KILLED steps."""
    while process.poll() is None and _saved_steps(state) < KILLED:
        time.sleep(0.01)
    process.kill()
    _, stderr = process.communicate()
    if process.returncode >= 0:
        raise RuntimeError(f"mirage train: ended before it was killed: {stderr.strip().splitlines()[-1]}")


def _saved_steps(state: Path) -> int:
    try:
        with safe_open(state, framework="pt") as file:
            return int(file.metadata()["step"])
    except (SafetensorError, OSError):
        return 0


def _same(one: Path, other: Path) -> bool:
    (metadata, tensors), (other_metadata, other_tensors) = read_weights(one), read_weights(other)
    return (
        metadata == other_metadata
        and tensors.keys() == other_tensors.keys()
        and all(torch.equal(tensor, other_tensors[key]) for key, tensor in tensors.items())
    )


def codec_cost(decode: bool = False) -> dict[str, float]:
    """Cost of the real codec's architecture on a CPU: 5 frames of 704 x 1280 in float32, in two windows.

    Encoding takes 19 Tflop, decoding 100 more. The weights are random.

    Args:
        decode: whether to decode as well.

    Returns:
        ``vae_5f_704x1280_encode_s`` and optionally ``..._decode_s`` (one run each); ``..._peak_gib`` of resident
        memory, including libraries and all weights; and ``vae_stream_gib``, computed rather than measured: the decoder
        state of one world in bfloat16 with the image decoded whole.
    """
    # a new process, because the peak is that of a process's whole life
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        measured = process.submit(_measure_codec, published_config(), VAE_SIZE, VAE_FRAMES, TILE, decode).result()
    prefix = f"vae_{VAE_FRAMES}f_{VAE_SIZE[0]}x{VAE_SIZE[1]}"
    metrics = {f"{prefix}_{name}": value for name, value in measured.items()}
    return {**metrics, "vae_stream_gib": round(stream_bytes(published_config(), VAE_SIZE) / 2 / GIB, 2)}


def _measure_codec(
    config: dict[str, Any], size: tuple[int, int], frames: int, tile: tuple[int, int] | None, decode: bool
) -> dict[str, float]:
    """Seconds of encoding noise and optionally decoding it; and the peak of this process's memory in GiB."""
    seconds = {}
    with torch.inference_mode():
        codec = WanCodec(AutoencoderKLWan(**config).eval(), tile)
        video = torch.rand(1, 3, frames, *size) * 2 - 1
        began = time.perf_counter()
        latents = codec.encode(video)
        seconds["encode_s"] = time.perf_counter() - began
        if decode:
            began = time.perf_counter()
            codec.decode(latents)
            seconds["decode_s"] = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB  # Linux counts in KiB
    return {name: round(value, 3) for name, value in (seconds | {"peak_gib": peak}).items()}


def stream_bytes(config: dict[str, Any], size: tuple[int, int]) -> int:
    """Bytes of the decoder's state of one world between two latent frames, in float32, computed from shapes alone."""
    with torch.device("meta"), torch.inference_mode():
        codec = WanCodec(AutoencoderKLWan(**config))
        latents = torch.zeros(1, codec.channels, 1, size[0] // codec.stride[1], size[1] // codec.stride[2])
        _, stream = codec.decode_next(latents)
        for _ in range(2):  # later frames keep as much
            _, stream = codec.decode_next(latents, stream)
    return stream.nbytes
