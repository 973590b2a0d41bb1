"""The training loop of all stages: AdamW, averaged weights, checkpoints to resume from; accelerate runs it."""

import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from mirage_sim.io import atomic_write, read_tensors, remove_partial
from mirage_sim.models.pretrained import require

logger = logging.getLogger(__name__)

PRECISIONS = {"float32": "no", "bfloat16": "bf16"}  # to accelerate's names
SHARDED = ("FSDP", "DEEPSPEED", "MEGATRON_LM")


class Objective(Protocol):
    """What a stage minimises: a callable that draws a batch and computes the loss of its networks on it."""

    def __call__(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw one batch with ``generator``; return scalar terms by name: ``loss`` is minimised, the rest is logged."""


@runtime_checkable
class Stateful(Protocol):
    """An objective that carries state from batch to batch, which checkpoints therefore store."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return the current state as tensors that share no memory."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a state that :meth:`state_dict` returned."""


class Stage(NamedTuple):
    """A stage that is ready to be trained.

    Attributes:
        modules: modules by name. Their parameters that require a gradient are trained.
        exports: functions by file name. Each writes its file from the trained modules.
        objective: what is minimised.
        accelerator: an accelerator of :func:`make_accelerator`.
        generator_device: device of the generators that the objective draws batches with.
    """

    modules: dict[str, nn.Module]
    exports: Mapping[str, Callable[[Path], None]]
    objective: Objective
    accelerator: Any
    generator_device: torch.device = torch.device("cpu")


def make_accelerator(
    folder: Path | None = None, *, cpu: bool = False, precision: str = "float32", gradient_accumulation_steps: int = 1
) -> Any:
    """Create the ``Accelerator`` that a stage trains with. ``accelerate launch`` sets the number of devices.

    Args:
        folder: folder for TensorBoard's files, if TensorBoard is installed; None writes none.
        cpu: whether to stay on the CPU.
        precision: ``"float32"``, or ``"bfloat16"`` for the networks' arithmetic. Stored weights do not change type.
        gradient_accumulation_steps: batches per optimiser step and process.

    Raises:
        ImportError: if accelerate is not installed.
        ValueError: if a setting is out of range or accelerate is configured to shard weights.
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
    """The modules and their objective as one network, because accelerate's wrappers expect all work in ``forward``."""

    def __init__(self, modules: dict[str, nn.Module], objective: Objective):
        super().__init__()
        self.parts = nn.ModuleDict(modules)
        self.objective = objective

    def forward(self, generator: torch.Generator) -> dict[str, Tensor]:
        return self.objective(generator)


class Trainer:
    """Trains modules with AdamW and keeps an exponential moving average (EMA) of their weights.

    The learning rate warms up over the first 200 steps and falls linearly to zero over the last 30 % of the training.

    Args:
        modules: modules by name. All of their parameters that require a gradient are trained.
        folder: folder of the checkpoint ``state.safetensors``. If the file exists, training resumes from it.
        steps: number of optimiser steps; None if ``seconds`` limits the training.
        seconds: training time over all interruptions; at least one step is made. None if ``steps`` limits the training.
        started: ``time.monotonic()`` from which this process counts ``seconds``; None for the call of :meth:`run`.
        learning_rate: learning rate between warm-up and decay.
        seed: seed of the batches: step ``i`` always draws the same ones.
        ema_decay: decay of the averaged weights.
        accelerator: an accelerator of :func:`make_accelerator`; None for one on the CPU.
        generator_device: device of the generators that the objective draws batches with.

    Raises:
        ValueError: unless exactly one of ``steps`` and ``seconds`` is set, or if the checkpoint is damaged or belongs
            to other modules. Nothing has changed then.
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
        ema_decay: float = 0.998,
        accelerator: Any = None,
        generator_device: torch.device | str = "cpu",
    ):
        if (steps is None) == (seconds is None):
            raise ValueError(f"steps, seconds: expected one of them, got {steps} and {seconds}")
        self.accelerator = make_accelerator(cpu=True) if accelerator is None else accelerator
        self.modules = {name: module.to(self.accelerator.device) for name, module in modules.items()}
        self.folder = folder
        self.steps, self.seconds, self.started = steps, seconds, started
        self.spent = 0.0  # seconds so far, counted only under a time limit
        self.learning_rate = learning_rate
        self.seed = seed
        self.ema_decay = ema_decay
        self.generator_device = generator_device
        self.step = 0
        self.parameters = {
            f"{name}.{key}": parameter
            for name, module in self.modules.items()
            for key, parameter in module.named_parameters()
            if parameter.requires_grad
        }
        self.ema = {key: parameter.detach().clone() for key, parameter in self.parameters.items()}
        self.fused = self.accelerator.device.type == "cuda"
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=learning_rate, weight_decay=0.01, betas=(0.9, 0.98), fused=self.fused or None
        )
        self._stateful: Stateful | None = None
        self._loaded_state: dict[
            str, Tensor
        ] = {}  # the objective's, from the checkpoint, until `run` gets the objective
        if self._state_path.exists():
            self._resume()

    @property
    def _state_path(self) -> Path:
        return self.folder / "state.safetensors"

    def run(self, objective: Objective, *, save_every: float = 180.0, log_every: int = 50) -> None:
        """Train until ``steps`` are made or ``seconds`` are spent.

        Args:
            objective: called with a generator that the seed and the step determine. Checkpoints include its state if
                it is :class:`Stateful`.
            save_every: seconds between checkpoints.
            log_every: steps between log lines (and lines of ``log.jsonl``).

        Raises:
            ValueError: if the objective is stateful and there are several processes.
        """
        self._stateful = objective if isinstance(objective, Stateful) else None
        if self._stateful and self.accelerator.num_processes > 1:
            raise ValueError(f"accelerate: expected one process for this stage, got {self.accelerator.num_processes}")
        if self._stateful and self._loaded_state:
            self._stateful.load_state_dict(self._loaded_state)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.accelerator.init_trackers("tensorboard")
        network = self.accelerator.prepare(_Network(self.modules, objective))
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
        return self._total - (self.step if self.steps is not None else self.spent)

    @property
    def _total(self) -> float:
        """Steps or seconds of the whole training."""
        return float(self.steps if self.steps is not None else self.seconds or 0.0)

    def _update(self, network: nn.Module) -> dict[str, Tensor]:
        """Make one optimiser step; return the means of the terms over its batches, on their device."""
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        self.optimizer.zero_grad(set_to_none=True)
        batches = self.accelerator.gradient_accumulation_steps
        means: dict[str, Tensor] = {}
        for batch in range(batches):
            number = (self.step * batches + batch) * self.accelerator.num_processes + self.accelerator.process_index
            generator = torch.Generator(self.generator_device).manual_seed(self.seed * 1_000_003 + number)
            with self.accelerator.accumulate(network):
                terms = network(generator)
                self.accelerator.backward(terms["loss"])
            for name, term in terms.items():
                mean = term.detach().double() / batches
                means[name] = means[name] + mean if name in means else mean
        for module in self.modules.values():
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        self.optimizer.step()
        self._update_ema()
        self.step += 1
        return means

    def _learning_rate(self) -> float:
        warm = min(1.0, (self.step + 1) / 200)
        cool = min(1.0, self._remaining() / (0.3 * self._total))
        return self.learning_rate * warm * max(cool, 0.0)

    @torch.no_grad()
    def _update_ema(self) -> None:
        decay = min(self.ema_decay, (1 + self.step) / (10 + self.step))
        for key, parameter in self.parameters.items():
            self.ema[key].lerp_(parameter, 1 - decay)

    def _log(self, line: dict[str, float]) -> None:
        if not self.accelerator.is_main_process:
            return
        logger.info("%s", line)
        self.accelerator.log({name: value for name, value in line.items() if name != "step"}, step=int(line["step"]))
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def save(self) -> None:
        """Write the checkpoint: weights, averages, the optimiser's and the objective's state. The write is atomic."""
        if not self.accelerator.is_main_process:
            return
        tensors = {f"weight.{key}": value.detach() for key, value in self.parameters.items()}
        tensors |= {f"average.{key}": value for key, value in self.ema.items()}
        objective_state = self._stateful.state_dict() if self._stateful else self._loaded_state
        tensors |= {f"loss.{key}": value for key, value in objective_state.items()}
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
            self.ema[key].copy_(stored[f"average.{key}"])
            state = {
                name: stored[f"optimizer.{name}.{key}"]
                for name in ("step", "exp_avg", "exp_avg_sq")
                if f"optimizer.{name}.{key}" in stored
            }
            # unless it is fused, AdamW keeps its step counter on the CPU
            self.optimizer.state[parameter] = {
                name: value if name == "step" and not self.fused else value.to(parameter.device)
                for name, value in state.items()
            }
        prefix = "loss."
        self._loaded_state = {
            key.removeprefix(prefix): value for key, value in stored.items() if key.startswith(prefix)
        }
        logger.info("resuming %s at step %d", self.folder, self.step)

    @torch.no_grad()
    def use_ema(self) -> None:
        """Load the averaged weights into the modules, for export."""
        for key, parameter in self.parameters.items():
            parameter.copy_(self.ema[key])
