"""A world on another device than the CPU: what a GPU would refuse is refused by the device of ``second_device``."""

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.second_device import second_device
from support.toy_world import toy_model, toy_starts
from torch import nn

from mirage_sim.build import build_world_model
from mirage_sim.envs.world_env import MirageWorldEnv
from mirage_sim.evaluation.rollout import RGB_MEMORY, variants_of
from mirage_sim.world import Body, World, WorldModel

COMMANDS = [(1.0, 0.5), (0.5, -1.0), (1.0, 0.0)]


def on(model: WorldModel, device: torch.device) -> WorldModel:
    for network in (model.codec, model.denoiser, model.depth):
        assert isinstance(network, nn.Module)
        network.to(device)
    return replace(model, device=device)


def walk(model: WorldModel, folder: Path) -> dict[str, Any]:
    """Everything that an environment does with a world: steps, collisions, scans, forks, snapshots and files."""
    env = MirageWorldEnv(model, starts=toy_starts(), collisions="slide", body=Body(unseen="blocked"), scan=36)
    frames, scans = [env.reset(seed=3)[0]], []
    for command in COMMANDS:
        frame, *_, info = env.step(np.array(command, np.float32))
        frames.append(frame)
        scans.append(info["scan"])
    env.world.save(folder / "world.safetensors")
    again = World(model, toy_starts())
    again.load(folder / "world.safetensors")
    fork = env.fork(1)[0]
    return {
        "frames": np.stack(frames),
        "scans": np.stack(scans),
        "fork": fork.step(np.array([1.0, 1.0], np.float32))[0],
        "loaded": again.step(fork.world.camera).frame,
        "points": info["memory_points"],
        "device": str(env.world.state.map.device),
    }


def elsewhere(folder: Path) -> dict[str, dict[str, Any]]:
    model = toy_model()
    variants = variants_of(model, [RGB_MEMORY]) | {"latent": model, "compact": compact(model)}
    with second_device() as device:
        return {name: walk(on(variant, device), folder) for name, variant in variants.items()}


def compact(model: WorldModel) -> WorldModel:
    return replace(model, memory=model.memory.compacted())  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def process() -> Iterator[ProcessPoolExecutor]:
    """A process of its own: torch keeps the device for good."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        yield process


@pytest.fixture(scope="module")
def walks(process: ProcessPoolExecutor, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    return process.submit(elsewhere, tmp_path_factory.mktemp("elsewhere")).result()


@pytest.mark.parametrize("name", ["latent", "compact", RGB_MEMORY])
def test_world_on_another_device_is_equal(walks, name, model, tmp_path):
    here = {"latent": model, "compact": compact(model), **variants_of(model, [RGB_MEMORY])}[name]
    expected, found = walk(here, tmp_path), walks[name]
    assert found.pop("device").startswith("elsewhere")
    assert expected.pop("device") == "cpu"
    assert found["points"] == expected.pop("points")
    for what, value in expected.items():
        grey_level_or_metres = 1.0 if value.dtype == np.uint8 else 1e-5
        np.testing.assert_allclose(found[what].astype(float), value.astype(float), atol=grey_level_or_metres, rtol=0)


def backbone_walks(cache: Path) -> list[np.ndarray]:
    """Frames of the real backbone's classes at toy size, on the CPU and elsewhere."""
    os.environ["XDG_CACHE_HOME"] = str(cache)
    model: Any = build_world_model("wan5b-toy")
    frames = [backbone_walk(model)]
    with second_device() as device:
        for network in (model.codec, model.denoiser, model.depth.estimator.model):
            network.to(device)
        model.depth.estimator.device = device
        frames.append(backbone_walk(replace(model, device=device)))
    return frames


def backbone_walk(model: WorldModel) -> np.ndarray:
    env = MirageWorldEnv(model)
    image = np.random.default_rng(0).integers(0, 256, (*model.size, 3), dtype=np.uint8)
    env.reset(seed=1, options={"image": image})
    return np.stack([env.step(np.array([1.0, 0.3], np.float32))[4]["frames"] for _ in range(4)])


@pytest.mark.slow
def test_backbone_on_another_device_is_equal(process: ProcessPoolExecutor, backbone_cache: Path):
    here, there = process.submit(backbone_walks, backbone_cache).result()
    assert here.std() > 1
    np.testing.assert_allclose(there.astype(int), here.astype(int), atol=1, rtol=0)


def refusals() -> list[str]:
    with second_device() as device:
        there, here = torch.ones(3, device=device), torch.ones(3)
        said = []
        for refused in (lambda: there + here, there.numpy, lambda: torch.cat([here, there])):
            with pytest.raises(RuntimeError) as error:
                refused()
            said.append(str(error.value))
        assert there.device.type == device.type == "elsewhere"
        assert (there.to("cpu") + here).tolist() == [2.0, 2.0, 2.0]
        return said


def test_simulated_device_rejects_what_a_gpu_rejects(process: ProcessPoolExecutor):
    mixed, numpy, stacked = process.submit(refusals).result()
    assert "one device" in mixed and "one device" in stacked and "numpy" in numpy
