"""One training loop for every stage: resumable, averaged weights, safetensors checkpoints; accelerate spreads it."""

import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from mirage_sim.io import atomic_write, read_tensors, remove_partial
from mirage_sim.models.pretrained import require

logger = logging.getLogger(__name__)

Loss = Callable[[torch.Generator, float], dict[str, Tensor]]
PRECISIONS = {"float32": "no", "bfloat16": "bf16"}  # and what accelerate calls them
SHARDED = ("FSDP", "DEEPSPEED", "MEGATRON_LM")


@runtime_checkable
class Stateful(Protocol):
    """A loss that goes on from batch to batch, so that a checkpoint must hold where it is."""

    def state_dict(self) -> dict[str, Tensor]:
        """Where it is; tensors that share no memory."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go there."""


def make_accelerator(
    folder: Path | None = None, *, cpu: bool = False, precision: str = "float32", gradient_accumulation_steps: int = 1
) -> Any:
    """The ``Accelerator`` that a stage trains with. ``accelerate launch`` tells it how many devices there are.

    Args:
        folder: for TensorBoard's files, if TensorBoard is installed; None for none.
        cpu: whether to stay on the CPU.
        precision: ``"float32"``, or ``"bfloat16"`` for the networks' arithmetic; weights stay as they are.
        gradient_accumulation_steps: batches per optimiser step and process.

    Raises:
        ImportError: if accelerate is not installed.
        ValueError: for settings out of range, or a way of training that shards weights.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision: expected one of {sorted(PRECISIONS)}, got {precision!r}")
    if (
        isinstance(gradient_accumulation_steps, bool)
        or not isinstance(gradient_accumulation_steps, int)
        or gradient_accumulation_steps < 1
    ):
        raise ValueError(
            f"gradient_accumulation_steps: expected a positive integer, got {gradient_accumulation_steps!r}"
        )
    accelerate = require("accelerate", "'mirage_sim[train]'")
    accelerator = accelerate.Accelerator(
        cpu=cpu,
        mixed_precision=PRECISIONS[precision],
        gradient_accumulation_steps=gradient_accumulation_steps,
        log_with="tensorboard" if folder and accelerate.utils.is_tensorboard_available() else None,
        project_dir=folder,
    )
    if accelerator.distributed_type.value in SHARDED:
        raise ValueError(
            f"accelerate: expected whole weights on each device (MULTI_GPU), got {accelerator.distributed_type.value}"
        )
    return accelerator


class _Network(nn.Module):
    """The modules and their loss as one network: accelerate's wrappers look for all work in ``forward``."""

    def __init__(self, modules: dict[str, nn.Module], loss: Loss):
        super().__init__()
        self.parts = nn.ModuleDict(modules)
        self.loss = loss

    def forward(self, generator: torch.Generator, progress: float) -> dict[str, Tensor]:
        return self.loss(generator, progress)


class Trainer:
    """Trains the modules of a stage with AdamW and keeps an exponential average of their weights.

    Args:
        modules: by name; all their parameters that require a gradient are trained.
        folder: where ``state.safetensors`` lives; an existing one is continued from.
        steps: optimiser steps in all. The learning rate warms up over the first 200 and falls linearly to zero over
            the last 30 % of the training. None where ``seconds`` says when it ends.
        seconds: of training in all, over all interruptions; at least one step is made. None where ``steps`` says when
            it ends.
        started: when this process began to spend these seconds, by ``time.monotonic()``; None: when it calls
            :meth:`run`.
        learning_rate: its plateau.
        seed: of the batches: step ``i`` always draws the same ones.
        average: decay of the averaged weights.
        accelerator: of :func:`make_accelerator`; None for one on the CPU.
        generator_device: of the generators that a loss draws its batches with.

    Raises:
        ValueError: unless one of steps and seconds is there; if the folder holds a damaged state, or one of other
            modules; nothing has changed then.
    """

    def __init__(
        self,
        modules: dict[str, nn.Module],
        folder: Path,
        *,
        steps: int | None = None,
        seconds: float | None = None,
        started: float | None = None,
        learning_rate: float,
        seed: int = 0,
        average: float = 0.998,
        accelerator: Any = None,
        generator_device: torch.device | str = "cpu",
    ):
        if (steps is None) == (seconds is None):
            raise ValueError(f"steps, seconds: expected one of them, got {steps} and {seconds}")
        self.accelerator = make_accelerator(cpu=True) if accelerator is None else accelerator
        self.modules = {name: module.to(self.accelerator.device) for name, module in modules.items()}
        self.folder = folder
        self.steps, self.seconds, self.started = steps, seconds, started
        self.spent = 0.0  # seconds until now, where they are counted
        self.learning_rate = learning_rate
        self.seed = seed
        self.average = average
        self.generator_device = generator_device
        self.step = 0
        self.parameters = {
            f"{name}.{key}": parameter
            for name, module in self.modules.items()
            for key, parameter in module.named_parameters()
            if parameter.requires_grad
        }
        self.averaged = {key: parameter.detach().clone() for key, parameter in self.parameters.items()}
        self.fused = self.accelerator.device.type == "cuda"
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=learning_rate, weight_decay=0.01, betas=(0.9, 0.98), fused=self.fused or None
        )
        self._stateful: Stateful | None = None
        self._loss_state: dict[str, Tensor] = {}  # as it was found; what is saved is asked for then
        if self._state_path.exists():
            self._resume()

    @property
    def _state_path(self) -> Path:
        return self.folder / "state.safetensors"

    def run(self, loss: Loss, *, save_every: float = 180.0, log_every: int = 50) -> None:
        """Train until ``steps`` are made or ``seconds`` are spent.

        Args:
            loss: called with a generator seeded by the step and the fraction of training done; returns named terms, of
                which ``loss`` is minimised and the rest is logged. If it is :class:`Stateful`, checkpoints hold its
                state.
            save_every: seconds between checkpoints.
            log_every: steps between log lines (and lines of ``log.jsonl``).

        Raises:
            ValueError: for a stateful loss in several processes.
        """
        self._stateful = loss if isinstance(loss, Stateful) else None
        if self._stateful and self.accelerator.num_processes > 1:
            raise ValueError(f"accelerate: expected one process for this stage, got {self.accelerator.num_processes}")
        if self._stateful and self._loss_state:
            self._stateful.load_state_dict(self._loss_state)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.accelerator.init_trackers("tensorboard")
        network = self.accelerator.prepare(_Network(self.modules, loss))
        main = self.accelerator.is_main_process
        saved = now = time.monotonic()
        started = (now if self.started is None else self.started) - self.spent
        sums: dict[str, Tensor] = {}
        with tqdm(total=self.steps, initial=self.step, unit="step", disable=None if main else True) as bar:
            while self._remaining() > 0 or not self.step:
                for name, value in self._update(network).items():
                    sums[name] = sums[name] + value if name in sums else value
                bar.update()
                now = time.monotonic()
                if self.seconds is not None:
                    self.spent = now - started
                if self.step % log_every == 0:
                    means = {name: round(float(total) / log_every, 5) for name, total in sums.items()}
                    self._log({"step": self.step, "seconds": round(now - started, 1), **means})
                    sums = {}
                if now - saved > save_every:
                    self.save()
                    saved = now
        self.save()
        self.accelerator.end_training()

    def _remaining(self) -> float:
        """Steps or seconds that are left."""
        return self.steps - self.step if self.steps is not None else self._whole - self.spent

    @property
    def _whole(self) -> float:
        """All of them."""
        return float(self.steps if self.steps is not None else self.seconds or 0.0)

    @property
    def progress(self) -> float:
        """Fraction of the training done, in [0, 1]."""
        return min(1.0, (self.step if self.steps is not None else self.spent) / self._whole)

    def _update(self, network: nn.Module) -> dict[str, Tensor]:
        """One step of the optimiser; means of the terms over its batches, where they are computed."""
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        self.optimizer.zero_grad(set_to_none=True)
        batches = self.accelerator.gradient_accumulation_steps
        means: dict[str, Tensor] = {}
        for batch in range(batches):
            number = (self.step * batches + batch) * self.accelerator.num_processes + self.accelerator.process_index
            generator = torch.Generator(self.generator_device).manual_seed(self.seed * 1_000_003 + number)
            with self.accelerator.accumulate(network):
                terms = network(generator, self.progress)
                self.accelerator.backward(terms["loss"])
            for name, term in terms.items():
                mean = term.detach().double() / batches
                means[name] = means[name] + mean if name in means else mean
        for module in self.modules.values():
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        self.optimizer.step()
        self._update_average()
        self.step += 1
        return means

    def _learning_rate(self) -> float:
        warm = min(1.0, (self.step + 1) / 200)
        cool = min(1.0, self._remaining() / (0.3 * self._whole))
        return self.learning_rate * warm * max(cool, 0.0)

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.average, (1 + self.step) / (10 + self.step))
        for key, parameter in self.parameters.items():
            self.averaged[key].lerp_(parameter, 1 - decay)

    def _log(self, line: dict[str, float]) -> None:
        if not self.accelerator.is_main_process:
            return
        logger.info("%s", line)
        self.accelerator.log({name: value for name, value in line.items() if name != "step"}, step=int(line["step"]))
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def save(self) -> None:
        """Write everything needed to go on; the file appears whole or not at all."""
        if not self.accelerator.is_main_process:
            return
        tensors = {f"weight.{key}": value.detach() for key, value in self.parameters.items()}
        tensors |= {f"average.{key}": value for key, value in self.averaged.items()}
        loss_state = self._stateful.state_dict() if self._stateful else self._loss_state
        tensors |= {f"loss.{key}": value for key, value in loss_state.items()}
        for key, parameter in self.parameters.items():
            for name, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{name}.{key}"] = value
        tensors = {key: value.contiguous() for key, value in tensors.items()}
        spent = {} if self.seconds is None else {"seconds": str(self.spent)}
        remove_partial(self.folder, self._state_path.name)  # of a killed run
        with atomic_write(self._state_path) as partial:
            save_file(tensors, partial, metadata={"step": str(self.step), **spent})

    @torch.no_grad()
    def _resume(self) -> None:
        stored, metadata = read_tensors(self._state_path, "a whole checkpoint in safetensors format")
        wanted = {f"weight.{key}": parameter.shape for key, parameter in self.parameters.items()}
        found = {key: value.shape for key, value in stored.items() if key.startswith("weight.")}
        if wanted != found:
            other = sorted(dict(wanted.items() ^ found.items()))
            raise ValueError(f"{self._state_path}: expected a checkpoint of these networks, which differ in {other[0]}")
        self.step, self.spent = int(metadata["step"]), float(metadata.get("seconds", 0.0))
        for key, parameter in self.parameters.items():
            parameter.copy_(stored[f"weight.{key}"])
            self.averaged[key].copy_(stored[f"average.{key}"])
            state = {
                name: stored[f"optimizer.{name}.{key}"]
                for name in ("step", "exp_avg", "exp_avg_sq")
                if f"optimizer.{name}.{key}" in stored
            }
            # the count of steps stays on the CPU, as the optimiser keeps it unless it is fused
            self.optimizer.state[parameter] = {
                name: value if name == "step" and not self.fused else value.to(parameter.device)
                for name, value in state.items()
            }
        prefix = "loss."
        self._loss_state = {key.removeprefix(prefix): value for key, value in stored.items() if key.startswith(prefix)}
        logger.info("continuing %s from step %d", self.folder, self.step)

    @torch.no_grad()
    def swap_in_average(self) -> None:
        """Put the averaged weights into the modules, for export."""
        for key, parameter in self.parameters.items():
            parameter.copy_(self.averaged[key])
