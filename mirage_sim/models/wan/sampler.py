"""How the real backbone is sampled: diffusers' solvers, the first frame kept, remembered cells held if wanted."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from torch import Tensor

from mirage_sim.models.wan.denoiser import WanCondition
from mirage_sim.protocols import Denoiser


def _unipc(steps: int, shift: float, device: torch.device) -> Any:
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)
    scheduler.set_timesteps(steps, device=device)
    return scheduler


def _euler(steps: int, shift: float, device: torch.device) -> Any:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 0.0, steps, endpoint=False), device=device)
    return scheduler


SOLVERS: dict[str, Callable[[int, float, torch.device], Any]] = {"unipc": _unipc, "euler": _euler}


@dataclass(frozen=True)
class Replacement:
    """Memory without training: remembered cells are held at the read-out, noised to the level of each step.

    The noise is that of the chunk, so that a held cell goes straight from its noise to the read-out; a wholly
    remembered chunk held to the end is the read-out, exactly.

    Args:
        until: share of the steps, in [0, 1], during which cells are held; at 1 they are in the result as well.
        feather: cells, at least 0, over which holding fades out before a hole.

    Raises:
        ValueError: for values outside these ranges.
    """

    until: float = 1.0
    feather: int = 1

    def __post_init__(self) -> None:
        if not 0.0 <= self.until <= 1.0:
            raise ValueError(f"until: expected a share in [0, 1], got {self.until}")
        if self.feather < 0:
            raise ValueError(f"feather: expected at least 0 cells, got {self.feather}")

    def weight(self, visible: Tensor) -> Tensor:
        """How firmly each cell is held, ``[B, 1, T, h, w]`` in [0, 1]: 0 in holes, 1 out of their reach.

        Args:
            visible: bool ``[B, T, h, w]``.
        """
        seen = visible.float()
        if self.feather:
            around = torch.nn.functional.pad(seen, (self.feather,) * 4, mode="replicate")
            seen = seen * torch.nn.functional.avg_pool2d(around, 2 * self.feather + 1, stride=1)
        return seen[:, None]


class WanSampler:
    """Samples a chunk with one of diffusers' solvers; state in float32.

    The chunk's first latent frame is kept clean, at noise level 0, where the condition knows it.

    Args:
        steps: network evaluations per chunk, at least 1.
        shift: above 1 spends more steps at high noise; 5 is the backbone's.
        solver: ``"unipc"`` or ``"euler"``.
        replace: holds what is remembered, for a backbone that was not trained to look at the memory.

    Raises:
        ValueError: for values outside these ranges.
    """

    def __init__(self, steps: int = 20, shift: float = 5.0, solver: str = "unipc", replace: Replacement | None = None):
        if steps < 1:
            raise ValueError(f"steps: expected at least 1, got {steps}")
        if shift <= 0:
            raise ValueError(f"shift: expected a positive number, got {shift}")
        if solver not in SOLVERS:
            raise ValueError(f"solver: expected one of {sorted(SOLVERS)}, got {solver!r}")
        self.steps, self.shift, self.solver, self.replace = steps, shift, solver, replace

    def sample(self, denoiser: Denoiser, condition: WanCondition, noise: Tensor) -> Tensor:
        """Clean latents ``[B, C, T, h, w]`` from noise of that shape."""
        scheduler = SOLVERS[self.solver](self.steps, self.shift, noise.device)
        noise = noise.float()
        readout, first = condition.readout.float(), condition.first
        weight = self.replace.weight(condition.visible) if self.replace else torch.zeros((), device=noise.device)
        until = self.replace.until * self.steps if self.replace else 0.0
        scheduler.set_begin_index(0)  # it would look for the first timestep, which many steps round to
        x = noise
        for step, timestep in enumerate(scheduler.timesteps):
            sigma = scheduler.sigmas[step].to(noise)
            held = weight if step < until else torch.zeros_like(weight)
            x = torch.lerp(x, torch.lerp(readout, noise, sigma), held)
            level = sigma.expand(x.shape[0], x.shape[2]).clone()
            if first is not None:
                x, level[:, 0] = _with_first(x, first), 0.0
            velocity = denoiser.velocity(x, level, condition).float()
            # solvers look back at velocities, so a held cell has that of its own straight way
            velocity = torch.lerp(velocity, noise - readout, held)
            x = scheduler.step(velocity, timestep, x, return_dict=False)[0]
        if until >= self.steps:
            x = torch.lerp(x, readout, weight)
        return x if first is None else _with_first(x, first)


def _with_first(x: Tensor, first: Tensor) -> Tensor:
    return torch.cat([first.to(x), x[:, :, 1:]], dim=2)
