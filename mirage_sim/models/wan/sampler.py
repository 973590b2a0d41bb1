"""Sampling with the Wan2.2 backbone: diffusers' solvers, a fixed first frame, optional replacement by the memory."""

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
    """Memory without training: visible cells are replaced by the read-out, noised to the level of each step.

    The noise is that of the chunk, so a replaced cell moves on a straight line from its noise to the read-out. If all
    cells are visible and replaced in all steps, the result equals the read-out.

    Args:
        until: fraction of the steps, in [0, 1], in which cells are replaced; at 1 also in the result.
        feather: number of cells, at least 0, over which the replacement fades out towards a hole.

    Raises:
        ValueError: for values outside these ranges.
    """

    until: float = 1.0
    feather: int = 1

    def __post_init__(self) -> None:
        if not 0.0 <= self.until <= 1.0:
            raise ValueError(f"until: expected a fraction in [0, 1], got {self.until}")
        if self.feather < 0:
            raise ValueError(f"feather: expected at least 0 cells, got {self.feather}")

    def weight(self, visible: Tensor) -> Tensor:
        """Weight of the replacement, ``[B, 1, T, h, w]`` in [0, 1]: 0 in holes, 1 beyond ``feather`` cells from them.

        Args:
            visible: bool ``[B, T, h, w]``, False in holes.
        """
        seen = visible.float()
        if self.feather:
            around = torch.nn.functional.pad(seen, (self.feather,) * 4, mode="replicate")
            seen = seen * torch.nn.functional.avg_pool2d(around, 2 * self.feather + 1, stride=1)
        return seen[:, None]


class WanSampler:
    """Samples a chunk with one of diffusers' solvers. The state is float32.

    If the condition has the chunk's first latent frame, that frame stays clean, at noise level 0.

    Args:
        steps: network evaluations per chunk, at least 1.
        shift: above 1 spends more steps at high noise. The backbone was trained with 5.
        solver: ``"unipc"`` or ``"euler"``.
        replace: replacement by the read-out, for a backbone that was not trained with the memory.

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
        """Turn noise ``[B, C, T, h, w]`` into clean latents of that shape."""
        scheduler = SOLVERS[self.solver](self.steps, self.shift, noise.device)
        noise = noise.float()
        readout, first = condition.readout.float(), condition.first
        weight = self.replace.weight(condition.visible) if self.replace else torch.zeros((), device=noise.device)
        until = self.replace.until * self.steps if self.replace else 0.0
        scheduler.set_begin_index(0)  # otherwise it searches for the first timestep, which is not unique after rounding
        x = noise
        for step, timestep in enumerate(scheduler.timesteps):
            sigma = scheduler.sigmas[step].to(noise)
            replaced = weight if step < until else torch.zeros_like(weight)
            x = torch.lerp(x, torch.lerp(readout, noise, sigma), replaced)
            level = sigma.expand(x.shape[0], x.shape[2]).clone()
            if first is not None:
                x, level[:, 0] = _with_first(x, first), 0.0
            velocity = denoiser.velocity(x, level, condition).float()
            # multistep solvers use earlier velocities, so those of replaced cells must match their straight line
            velocity = torch.lerp(velocity, noise - readout, replaced)
            x = scheduler.step(velocity, timestep, x, return_dict=False)[0]
        if until >= self.steps:
            x = torch.lerp(x, readout, weight)
        return x if first is None else _with_first(x, first)


def _with_first(x: Tensor, first: Tensor) -> Tensor:
    return torch.cat([first.to(x), x[:, :, 1:]], dim=2)
