"""One training loop for every stage: resumable, averaged weights, safetensors checkpoints."""

import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

logger = logging.getLogger(__name__)

Loss = Callable[[torch.Generator, float], dict[str, Tensor]]


class Trainer:
    """Trains the modules of a stage with AdamW and keeps an exponential average of their weights.

    Args:
        modules: by name; all their parameters that require a gradient are trained.
        folder: where ``state.safetensors`` lives; an existing one is continued from.
        steps: optimiser steps in all; the learning rate warms up over the first 200 and falls linearly to zero over
            the last 30 %.
        learning_rate: its plateau.
        seed: of the batches: step ``i`` always draws the same batch.
        average: decay of the averaged weights.
    """

    def __init__(
        self,
        modules: dict[str, nn.Module],
        folder: Path,
        *,
        steps: int,
        learning_rate: float,
        seed: int = 0,
        average: float = 0.998,
    ):
        self.modules = modules
        self.folder = folder
        self.steps = steps
        self.learning_rate = learning_rate
        self.seed = seed
        self.average = average
        self.step = 0
        self.parameters = {
            f"{name}.{key}": parameter
            for name, module in modules.items()
            for key, parameter in module.named_parameters()
            if parameter.requires_grad
        }
        self.averaged = {key: parameter.detach().clone() for key, parameter in self.parameters.items()}
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=learning_rate, weight_decay=0.01, betas=(0.9, 0.98)
        )
        if self._state_path.exists():
            self._resume()

    @property
    def _state_path(self) -> Path:
        return self.folder / "state.safetensors"

    def run(self, loss: Loss, *, save_every: float = 180.0, log_every: int = 50) -> None:
        """Train until ``steps``.

        Args:
            loss: called with a generator seeded by the step and the fraction of training done; returns named terms, of
                which ``loss`` is minimised and the rest is logged.
            save_every: seconds between checkpoints.
            log_every: steps between log lines (and lines of ``log.jsonl``).
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        saved = started = time.monotonic()
        sums: dict[str, float] = {}
        while self.step < self.steps:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.step)
            for group in self.optimizer.param_groups:
                group["lr"] = self._learning_rate()
            terms = loss(generator, self.step / self.steps)
            self.optimizer.zero_grad(set_to_none=True)
            terms["loss"].backward()
            for module in self.modules.values():
                nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            self.optimizer.step()
            self._update_average()
            self.step += 1
            for name, term in terms.items():
                sums[name] = sums.get(name, 0.0) + float(term.detach())
            if self.step % log_every == 0:
                means = {name: round(total / log_every, 5) for name, total in sums.items()}
                self._log({"step": self.step, "seconds": round(time.monotonic() - started, 1), **means})
                sums = {}
            if time.monotonic() - saved > save_every:
                self.save()
                saved = time.monotonic()
        self.save()

    def _learning_rate(self) -> float:
        warm = min(1.0, (self.step + 1) / 200)
        cool = min(1.0, (self.steps - self.step) / (0.3 * self.steps))
        return self.learning_rate * warm * cool

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.average, (1 + self.step) / (10 + self.step))
        for key, parameter in self.parameters.items():
            self.averaged[key].lerp_(parameter, 1 - decay)

    def _log(self, line: dict[str, float]) -> None:
        logger.info("%s", line)
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def save(self) -> None:
        """Write everything needed to go on; the file appears whole or not at all."""
        tensors = {f"weight.{key}": value.detach() for key, value in self.parameters.items()}
        tensors |= {f"average.{key}": value for key, value in self.averaged.items()}
        for key, parameter in self.parameters.items():
            for name, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{name}.{key}"] = value
        tensors = {key: value.contiguous() for key, value in tensors.items()}
        partial = self._state_path.with_suffix(f".partial{os.getpid()}")
        save_file(tensors, partial, metadata={"step": str(self.step)})
        partial.replace(self._state_path)

    @torch.no_grad()
    def _resume(self) -> None:
        try:
            with safe_open(self._state_path, framework="pt") as file:
                step = int(file.metadata()["step"])
                stored = {key: file.get_tensor(key) for key in file.keys()}
        except SafetensorError as error:
            raise ValueError(
                f"{self._state_path}: expected a whole checkpoint in safetensors format: {error}"
            ) from error
        self.step = step
        for key, parameter in self.parameters.items():
            parameter.copy_(stored[f"weight.{key}"])
            self.averaged[key].copy_(stored[f"average.{key}"])
            self.optimizer.state[parameter] = {
                name: stored[f"optimizer.{name}.{key}"]
                for name in ("step", "exp_avg", "exp_avg_sq")
                if f"optimizer.{name}.{key}" in stored
            }
        logger.info("continuing %s from step %d", self.folder, self.step)

    @torch.no_grad()
    def swap_in_average(self) -> None:
        """Put the averaged weights into the modules, for export."""
        for key, parameter in self.parameters.items():
            parameter.copy_(self.averaged[key])
