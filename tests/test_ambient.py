"""Whatever a program has set in torch, worlds have the same bits; and a forked process can walk."""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import data_equivalence
from support.toy_world import SIZE, toy_model, toy_starts

import mirage_sim
from mirage_sim.ambient import own_torch
from mirage_sim.build import compose, instantiate
from mirage_sim.geometry import Camera
from mirage_sim.models import save_model
from mirage_sim.world import World


@contextmanager
def setting(change: Callable[[Any], Any], value: Any, before: Any) -> Iterator[None]:
    change(value)
    try:
        yield
    finally:
        change(before)


AMBIENT: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "float64 by default": lambda: setting(torch.set_default_dtype, torch.float64, torch.float32),
    "bfloat16 by default": lambda: setting(torch.set_default_dtype, torch.bfloat16, torch.float32),
    "on meta by default": lambda: setting(torch.set_default_device, "meta", None),
    "within a device": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "no grad": torch.no_grad,
    "inference": torch.inference_mode,
    "deterministic": lambda: setting(torch.use_deterministic_algorithms, True, False),
    "another generator": lambda: setting(torch.manual_seed, 7, 0),
    "one thread": lambda: setting(torch.set_num_threads, 1, torch.get_num_threads()),
    "three threads": lambda: setting(torch.set_num_threads, 3, torch.get_num_threads()),
}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of the toy world, out of files."""
    folder, model = tmp_path_factory.mktemp("weights"), toy_model()
    overrides = [f"world.size={list(SIZE)}", "latent.channels=8"]
    for name in ("codec", "denoiser", "depth"):
        save_model(getattr(model, name), folder / f"{name}.safetensors")
        overrides.append(f"world.{name}.path={folder / name}.safetensors")
    return compose("world", overrides).world


def walk(
    config: dict[str, Any], folder: Path, at: Callable[[], AbstractContextManager[Any]] = nullcontext
) -> list[Any]:
    """All that an environment with everything in it shows, the world built and walked within a context."""
    with at():
        model = instantiate(config)
        arguments = {"collisions": "slide", "scan": 9, "task": "goal", "render_mode": "rgb_array"}
        env = gymnasium.make("MirageWorld-v0", world=model, starts=toy_starts(), observation="dict", **arguments)
        options = {"goal": [0.5, 2.0]}
        seen: list[Any] = [env.reset(seed=3, options=options)]
        seen += [env.step(np.array([1.0, 0.5], np.float32)) for _ in range(2)]
        unwrapped: Any = env.unwrapped
        unwrapped.world.save(folder / "saved")
    with at():  # entered in one context, left in another
        seen += [env.step(np.array([0.3, -1.0], np.float32)), env.render(), unwrapped.restore(unwrapped.snapshot())]
        world = World(model)
        loaded = world.load(folder / "saved")
        seen += [loaded.frames, world.step(Camera.from_fov(torch.eye(4, device="cpu"), 50.0, SIZE)).frames]
    return seen


@pytest.fixture(scope="module")
def usual(config: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return walk(config, tmp_path_factory.mktemp("usual"))


@pytest.mark.parametrize("name", AMBIENT)
def test_bits_do_not_depend_on_torch_settings(
    config: dict[str, Any], usual: list[Any], name: str, tmp_path: Path
) -> None:
    seen = walk(config, tmp_path, AMBIENT[name])
    assert data_equivalence(seen, usual, exact=True)
    assert (tmp_path / "saved").read_bytes()


@pytest.mark.parametrize("name", AMBIENT)
def test_torch_settings_are_restored(name: str) -> None:
    def state() -> tuple[Any, ...]:
        here = torch.zeros(1)
        modes = torch.is_autocast_enabled("cpu"), torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        return here.dtype, here.device, here.is_inference(), torch.get_num_threads(), *modes

    with AMBIENT[name]():
        before = state()
        with own_torch(), own_torch():
            new = torch.zeros(1)
            assert (new.dtype, new.device.type, new.is_inference()) == (torch.float32, "cpu", False)
            assert not torch.is_autocast_enabled("cpu")
        with pytest.raises(ZeroDivisionError), own_torch():
            1 / 0  # noqa: B018
        assert state() == before


def test_default_dtype_returns_after_the_last_thread() -> None:
    with setting(torch.set_default_dtype, torch.float64, torch.float32):
        one, other = own_torch(), own_torch()
        one.__enter__()
        other.__enter__()
        one.__exit__(None, None, None)
        assert torch.get_default_dtype() == torch.float32
        other.__exit__(None, None, None)
        assert torch.get_default_dtype() == torch.float64


def test_cameras_are_float32_for_any_default_dtype() -> None:
    with setting(torch.set_default_dtype, torch.float64, torch.float32):
        camera = Camera.from_fov(torch.eye(4), 60.0, SIZE).validate()
    assert camera.K.dtype == camera.c2w.dtype == torch.float32


AFTER_A_WALK = """
import sys
import gymnasium, numpy as np, torch
import mirage_sim

if __name__ == "__main__":
    torch.set_num_threads(2)
    env = gymnasium.make("MirageWorld-v0")
    env.reset(seed=0)
    expected = env.step(np.ones(2, np.float32))[0]
    envs = gymnasium.make_vec("MirageWorld-v0", 1, vectorization_mode="async", vector_kwargs={"context": sys.argv[1]})
    envs.reset(seed=[0])
    envs.step_async(np.ones((1, 2), np.float32))
    assert np.array_equal(envs.step_wait(timeout=100)[0][0], expected)
    envs.close()
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", [m for m in multiprocessing.get_all_start_methods() if m != "forkserver"])
def test_forked_processes_can_step(method: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(AFTER_A_WALK)
    environment = {**os.environ, "PYTHONPATH": str(Path(mirage_sim.__file__).parent.parent)}
    command = [sys.executable, str(program), method]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, env=environment)
    assert done.returncode == 0, done.stderr
