import json
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from mirage_sim.training.loop import Objective, Trainer, make_accelerator


def make_modules(seed: int = 0) -> dict[str, nn.Module]:
    torch.manual_seed(seed)
    return {"body": nn.Sequential(nn.Linear(2, 16), nn.Tanh()), "head": nn.Linear(16, 1), "late": nn.Linear(2, 1)}


def regression(modules: dict[str, nn.Module], stop_at: int | None = None, late_from: int = 6) -> Objective:
    """Fit a plane to random batches; ``late`` has a gradient only from step ``late_from`` on (of seed 0)."""
    calls = 0

    def loss(generator: torch.Generator) -> dict[str, Tensor]:
        nonlocal calls
        if calls == stop_at:
            raise KeyboardInterrupt
        calls += 1
        x = torch.randn(32, 2, generator=generator)
        true = (x @ torch.tensor([0.7, -0.4]))[:, None] + 0.1
        error = (modules["head"](modules["body"](x)) - true).square().mean()
        if generator.initial_seed() >= late_from:
            error = error + (modules["late"](x) - true).square().mean()
        return {"loss": error, "twice": 2 * error}

    return loss


def weights(modules: dict[str, nn.Module]) -> dict[str, Tensor]:
    return {f"{n}.{k}": v.detach().clone() for n, m in modules.items() for k, v in m.state_dict().items()}


def test_loss_goes_down(tmp_path: Path):
    modules = make_modules()
    loss = regression(modules, late_from=0)
    fixed = torch.Generator().manual_seed(9).get_state()

    def error() -> float:
        generator = torch.Generator()
        generator.set_state(fixed)
        return loss(generator)["loss"].item()

    before = error()
    trainer = Trainer(modules, tmp_path, steps=250, learning_rate=0.02)
    trainer.run(loss)
    assert error() < 0.05 * before
    trainer.use_ema()
    assert error() < 0.05 * before


@pytest.mark.parametrize("stop_at", [1, 5, 9])  # before and after "late" is first trained
def test_resumed_training_ends_with_the_same_weights(tmp_path: Path, stop_at: int):
    straight = make_modules()
    whole = Trainer(straight, tmp_path / "straight", steps=12, learning_rate=0.05)
    whole.run(regression(straight))

    first = make_modules()
    trainer = Trainer(first, tmp_path / "resumed", steps=12, learning_rate=0.05)
    with pytest.raises(KeyboardInterrupt):
        trainer.run(regression(first, stop_at=stop_at), save_every=0.0)
    second = make_modules(seed=1)  # different weights, which the checkpoint must replace
    resumed = Trainer(second, tmp_path / "resumed", steps=12, learning_rate=0.05)
    assert resumed.step == stop_at
    resumed.run(regression(second))
    assert resumed.step == 12
    for key, value in weights(straight).items():
        assert torch.equal(weights(second)[key], value), key
        assert torch.equal(resumed.ema[key], whole.ema[key]), key


def test_finished_run_makes_no_more_steps(tmp_path: Path):
    modules = make_modules()
    Trainer(modules, tmp_path, steps=3, learning_rate=0.05).run(regression(modules))
    again = make_modules(seed=1)
    trainer = Trainer(again, tmp_path, steps=3, learning_rate=0.05)
    trainer.run(regression(again, stop_at=0))
    assert all(torch.equal(weights(again)[key], value) for key, value in weights(modules).items())


def test_seed_determines_the_batches(tmp_path: Path):
    ends = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        modules = make_modules()
        Trainer(modules, tmp_path / name, steps=3, learning_rate=0.05, seed=seed).run(regression(modules))
        ends.append(weights(modules)["head.weight"])
    assert torch.equal(ends[0], ends[1]) and not torch.equal(ends[0], ends[2])


def test_checkpoint_holds_weights_ema_and_optimizer(tmp_path: Path):
    modules = make_modules()
    modules["frozen"] = nn.Linear(2, 2).requires_grad_(False)
    trainer = Trainer(modules, tmp_path, steps=4, learning_rate=0.05)
    trainer.run(regression(modules, late_from=2), save_every=0.0, log_every=2)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["log.jsonl", "state.safetensors"]
    with safe_open(tmp_path / "state.safetensors", framework="pt") as file:
        assert file.metadata() == {"step": "4"}
        keys = set(file.keys())
        for key, value in weights({name: modules[name] for name in ("body", "head", "late")}).items():
            assert torch.equal(file.get_tensor(f"weight.{key}"), value)
            assert torch.equal(file.get_tensor(f"average.{key}"), trainer.ema[key])
            assert {f"optimizer.{name}.{key}" for name in ("step", "exp_avg", "exp_avg_sq")} <= keys
        assert not any("frozen" in key for key in keys)


def test_log_holds_means_between_its_lines(tmp_path: Path):
    modules = make_modules()
    seen: list[float] = []
    inner = regression(modules)

    def loss(generator: torch.Generator) -> dict[str, Tensor]:
        terms = inner(generator)
        seen.append(terms["loss"].item())
        return terms

    Trainer(modules, tmp_path, steps=7, learning_rate=0.05).run(loss, log_every=3)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [3, 6]
    for line, losses in zip(lines, (seen[:3], seen[3:6]), strict=True):
        assert line["loss"] == pytest.approx(sum(losses) / 3, abs=1e-5)
        assert line["twice"] == pytest.approx(2 * line["loss"], abs=2e-5)


def test_learning_rate_warms_up_and_decays(tmp_path: Path):
    modules = {"line": nn.Linear(1, 1)}
    trainer = Trainer(modules, tmp_path, steps=1000, learning_rate=0.01)
    rates = []

    def loss(generator: torch.Generator) -> dict[str, Tensor]:
        rates.append(trainer.optimizer.param_groups[0]["lr"])
        return {"loss": modules["line"](torch.ones(1, 1)).square().sum()}

    trainer.run(loss)
    assert rates[0] == pytest.approx(0.01 / 200) and rates[99] == pytest.approx(0.005)
    assert rates[199:700] == pytest.approx([0.01] * 501)
    assert rates[850] == pytest.approx(0.005) and rates[999] == pytest.approx(0.01 / 300)


def test_ema_of_weights_follows_its_formula(tmp_path: Path):
    modules = {"line": nn.Linear(2, 1)}
    trainer = Trainer(modules, tmp_path, steps=60, learning_rate=0.5, ema_decay=0.8)
    path = []

    def loss(generator: torch.Generator) -> dict[str, Tensor]:
        path.append(modules["line"].weight.detach().clone())
        return {"loss": modules["line"](torch.randn(8, 2, generator=generator)).square().mean()}

    trainer.run(loss)
    path.append(modules["line"].weight.detach().clone())
    expected = path[0].double()
    for step, value in enumerate(path[1:]):  # the decay is lower in the first steps
        decay = min(0.8, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value.double()
    assert (path[-1] - path[0]).abs().max() > 0.1
    torch.testing.assert_close(trainer.ema["line.weight"].double(), expected, atol=1e-6, rtol=0)
    assert (trainer.ema["line.weight"] - path[-1]).abs().max() > 1e-4
    trainer.use_ema()
    assert torch.equal(modules["line"].weight, trainer.ema["line.weight"])


def test_huge_gradients_are_clipped(tmp_path: Path):
    modules = {"line": nn.Linear(2, 1)}
    trainer = Trainer(modules, tmp_path, steps=1, learning_rate=0.1)
    trainer.run(lambda generator: {"loss": 1e6 * modules["line"](torch.ones(1, 2)).sum()})
    norms = torch.stack([parameter.grad.norm() for parameter in modules["line"].parameters()])
    assert norms.norm().item() == pytest.approx(1.0, rel=1e-3)


def test_accumulated_batches_have_the_gradient_of_one(tmp_path: Path):
    modules, drawn = {"line": nn.Linear(2, 1)}, []

    def loss(generator: torch.Generator) -> dict[str, Tensor]:
        drawn.append(torch.randn(4, 2, generator=generator))
        return {"loss": modules["line"](drawn[-1]).square().mean()}

    start = weights(modules)
    trainer = Trainer(
        modules,
        tmp_path,
        steps=1,
        learning_rate=0.1,
        accelerator=make_accelerator(cpu=True, gradient_accumulation_steps=3),
    )
    trainer.run(loss)
    assert trainer.step == 1 and len({float(batch.sum()) for batch in drawn}) == 3
    line = nn.Linear(2, 1)
    line.load_state_dict({key.removeprefix("line."): value for key, value in start.items()})
    line(torch.cat(drawn)).square().mean().backward()
    nn.utils.clip_grad_norm_(line.parameters(), 1.0)
    for name, parameter in line.named_parameters():
        torch.testing.assert_close(modules["line"].get_parameter(name).grad, parameter.grad)


def test_stateful_objective_resumes_with_its_state(tmp_path: Path):
    class Counting:
        def __init__(self, line: nn.Module, stop_at: int | None = None):
            self.line, self.stop_at, self.count = line, stop_at, torch.zeros(1)

        def __call__(self, generator: torch.Generator) -> dict[str, Tensor]:
            if self.stop_at == int(self.count):
                raise KeyboardInterrupt
            self.count = self.count + 1
            return {"loss": (self.line(self.count[None])).square().mean()}

        def state_dict(self) -> dict[str, Tensor]:
            return {"count": self.count}

        def load_state_dict(self, state: dict[str, Tensor]) -> None:
            self.count = state["count"]

    modules = {"line": nn.Linear(1, 1)}
    trainer = Trainer(modules, tmp_path, steps=6, learning_rate=0.1)
    with pytest.raises(KeyboardInterrupt):
        trainer.run(Counting(modules["line"], stop_at=4), save_every=0.0)
    again = Counting(modules["line"])
    Trainer(modules, tmp_path, steps=6, learning_rate=0.1).run(again)
    assert again.count == 6


def test_checkpoint_of_other_networks_is_rejected(tmp_path: Path):
    modules = make_modules()
    Trainer(modules, tmp_path, steps=1, learning_rate=0.1).run(regression(modules))
    others = make_modules() | {"late": nn.Linear(3, 1)}
    before = weights(others)
    with pytest.raises(ValueError, match="expected a checkpoint of these networks, which differ in weight.late.weight"):
        Trainer(others, tmp_path, steps=1, learning_rate=0.1)
    assert all(torch.equal(value, before[key]) for key, value in weights(others).items())


def test_log_is_written_to_tensorboard(tmp_path: Path):
    pytest.importorskip("tensorboard")
    modules = make_modules()
    accelerator = make_accelerator(tmp_path, cpu=True)
    Trainer(modules, tmp_path, steps=2, learning_rate=0.1, accelerator=accelerator).run(
        regression(modules), log_every=1
    )
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_time_limit_ends_training_at_zero_learning_rate(tmp_path: Path):
    modules = make_modules()
    trainer = Trainer(modules, tmp_path, seconds=0.4, learning_rate=0.01)
    seen = []

    def loss(generator: torch.Generator) -> dict[str, Tensor]:
        time.sleep(0.01)
        rate = trainer.optimizer.param_groups[0]["lr"] / min(1.0, (trainer.step + 1) / 200)
        seen.append((trainer.spent / 0.4, rate))
        return regression(modules)(generator)

    trainer.run(loss)
    fractions = [fraction for fraction, _ in seen]
    assert fractions[0] == 0 and fractions[-1] < 1 and fractions == sorted(fractions)
    for fraction, rate in seen:
        assert rate == pytest.approx(0.01 * min(1.0, (1 - fraction) / 0.3))
    assert trainer.spent >= 0.4


def test_time_limit_counts_seconds_of_killed_runs(tmp_path: Path):
    modules = make_modules()
    earlier = time.monotonic() - 400.0
    first = Trainer(modules, tmp_path, seconds=1000, started=earlier, learning_rate=0.01)
    with pytest.raises(KeyboardInterrupt):
        first.run(regression(modules, stop_at=3), save_every=0.0)
    again = Trainer(modules, tmp_path, seconds=1000, started=earlier - 300.0, learning_rate=0.01)
    assert again.step == 3 and 400 <= again.spent < 500
    again.run(regression(modules))
    assert again.step == 4 and 1100 <= again.spent < 1300
    over = Trainer(modules, tmp_path, seconds=1000, learning_rate=0.01)
    over.run(regression(modules, stop_at=0))
    assert over.step == 4


def test_exceeded_time_limit_still_makes_one_step(tmp_path: Path):
    modules = make_modules()
    trainer = Trainer(modules, tmp_path, seconds=0.1, started=time.monotonic() - 1.0, learning_rate=0.01)
    trainer.run(regression(modules))
    assert trainer.step == 1 and trainer.spent >= 1.0


@pytest.mark.parametrize("limits", [{}, {"steps": 1, "seconds": 1.0}])
def test_trainer_rejects_no_limit_and_two_limits(limits: dict[str, float], tmp_path: Path):
    with pytest.raises(ValueError, match="steps, seconds: expected one of them"):
        Trainer(make_modules(), tmp_path, learning_rate=0.1, **limits)
