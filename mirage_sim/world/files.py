"""A moment of a world in one safetensors file: the map, the latents made last, the camera, and what was seen last."""

import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mirage_sim.geometry import Camera
from mirage_sim.world.observation import Observation
from mirage_sim.world.world_model import WorldModel, WorldState

FORMAT = "mirage_sim.world.1"
_MAP = "map."
_OWN = ("preceding", "c2w", "K", "frame", "depth", "remembered")


def save(path: str | Path, state: WorldState, observation: Observation) -> None:
    """Write a moment; the file appears whole or not at all."""
    path = Path(path)
    own = {
        "preceding": state.preceding,
        "c2w": state.camera.c2w,
        "K": state.camera.K,
        "frame": torch.tensor(observation.frame),
        "depth": torch.tensor(observation.depth),
        "remembered": torch.tensor(observation.remembered),
    }
    tensors = own | {_MAP + name: tensor for name, tensor in state.map.tensors().items()}
    facts = {"seed": state.seed, "step": state.step, "info": observation.info}
    partial = path.with_name(f"{path.name}.partial{os.getpid()}")
    try:
        save_file(
            {name: tensor.cpu().contiguous() for name, tensor in tensors.items()},
            partial,
            metadata={"format": FORMAT, "facts": json.dumps(facts)},
        )
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load(path: str | Path, model: WorldModel) -> tuple[WorldState, Observation]:
    """Read a moment that :func:`save` wrote, for a model of the same kind as the one that made it.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is truncated, foreign, inconsistent or of another kind of model.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a saved world")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError(f"{path}: expected a world of format {FORMAT}, got {metadata.get('format')!r}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        facts = json.loads(metadata["facts"])
        seed, step, info = int(facts["seed"]), int(facts["step"]), dict(facts["info"])
        own = {name: tensors[name] for name in _OWN}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: expected a whole safetensors file: {error}") from error
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: expected a whole saved world, missing or unreadable: {error}") from error
    if not 0 <= seed < 2**63 or step < 0:
        raise ValueError(f"{path}: expected a seed in [0, 2^63) and a step of at least 0, got {seed} and {step}")
    _check(path, own, model)
    device = model.device
    parts = {name.removeprefix(_MAP): t.to(device) for name, t in tensors.items() if name.startswith(_MAP)}
    map = type(model.memory.empty()).from_tensors(parts)
    camera = Camera(own["c2w"], own["K"], model.size).validate()
    state = WorldState(map, own["preceding"].to(device), camera.to(device), seed, step)
    frame, depth, remembered = (own[name].numpy() for name in ("frame", "depth", "remembered"))
    return state, Observation(frame, depth, remembered, camera, info)


def _check(path: Path, own: dict[str, Tensor], model: WorldModel) -> None:
    """Raise ValueError unless these tensors fit the model."""
    size, (_, y, x) = tuple(model.size), model.codec.stride
    grid = [size[0] // y, size[1] // x]
    expected = {
        "preceding": (torch.float32, [model.codec.channels, 1, *grid]),
        "c2w": (torch.float32, [4, 4]),
        "K": (torch.float32, [3, 3]),
        "frame": (torch.uint8, [*size, 3]),
        "depth": (torch.float32, [*size]),
        "remembered": (torch.bool, [*size]),
    }
    for name, (dtype, shape) in expected.items():
        tensor = own[name]
        if tensor.dtype != dtype or list(tensor.shape) != shape:
            raise ValueError(
                f"{path}: expected {name} of {dtype} {shape} for this model, got {tensor.dtype} {list(tensor.shape)}"
            )
    if not bool(torch.isfinite(own["preceding"]).all()):
        raise ValueError(f"{path}: expected finite preceding latents")
