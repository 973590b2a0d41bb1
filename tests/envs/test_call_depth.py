"""How many functions of this package lie between ``env.step`` and the networks."""

import traceback
from pathlib import Path

import numpy as np
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

import mirage_sim

PACKAGE = Path(mirage_sim.__file__).resolve().parent
FOLDERS = (PACKAGE, (PACKAGE / "envs").resolve())  # envs is a symlink in a checkout


def test_step_reaches_a_layer_within_8_frames(make) -> None:
    env = make()
    env.reset(seed=0)
    stacks: list[list[str]] = []

    def record(module: nn.Module, _: object) -> None:
        if not stacks and not any(module.children()):
            frames = [(Path(frame.filename).resolve(), frame.name) for frame in traceback.extract_stack()]
            stacks.append([name for path, name in frames if any(path.is_relative_to(folder) for folder in FOLDERS)])

    hook = register_module_forward_pre_hook(record)
    try:
        env.step(np.array([1.0, 0.2], np.float32))
    finally:
        hook.remove()
    (names,) = stacks
    assert names[0] == "step" and len(names) <= 8, names
