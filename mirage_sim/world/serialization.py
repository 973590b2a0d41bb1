"""A moment of a world in one safetensors file: the map, what was given, made last and seen last, and the camera."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mirage_sim.geometry import Camera
from mirage_sim.io import read_tensors, save_tensors
from mirage_sim.memory.retrieval import Occupancy
from mirage_sim.world.history import Frame, History
from mirage_sim.world.keyframes import Keyframe
from mirage_sim.world.observation import Observation
from mirage_sim.world.state import WorldState
from mirage_sim.world.world_model import WorldModel

FORMAT = "mirage_sim.world.1"
_MAP, _PAST, _STREAM, _GIVEN = "map.", "past.", "stream.", "given."
_OWN = ("preceding", "c2w", "K", "frame", "depth", "remembered")


def save(path: str | Path, state: WorldState, observation: Observation) -> None:
    """Write a moment with a digest of it; the file appears whole or not at all."""
    path = Path(path)
    tensors = {
        "preceding": state.preceding,
        "c2w": state.camera.c2w,
        "K": state.camera.K,
        "frame": torch.tensor(observation.frame),
        "depth": torch.tensor(observation.depth),
        "remembered": torch.tensor(observation.remembered),
    }
    if len(observation.frames) > 1:
        tensors["before"] = torch.tensor(observation.frames[:-1])
    tensors |= {_MAP + name: tensor for name, tensor in state.map.tensors().items()}
    if state.history:
        tensors |= {_PAST + name: tensor for name, tensor in _taken_apart(state.history).items()}
    if state.keyframe:
        frame, depth, camera = state.keyframe.frame, state.keyframe.depth, state.keyframe.camera
        parts = {"frame": frame, "depth": depth, "c2w": camera.c2w, "K": camera.K}
        # after a reset the camera is still there, and a file refuses tensors that share memory
        tensors |= {_GIVEN + name: tensor.clone() for name, tensor in parts.items()}
    facts = {"seed": state.seed, "step": state.step, "info": observation.info}
    ready = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    save_tensors(path, ready, {"format": FORMAT, "facts": json.dumps(facts)})


def load(path: str | Path, model: WorldModel) -> tuple[WorldState, Observation]:
    """Read a moment that :func:`save` wrote, for a model of the same kind as the one that made it.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is truncated, damaged, foreign, inconsistent or of another kind of model.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a saved world")
    tensors, metadata = read_tensors(path)
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path}: expected a world of format {FORMAT}, got {metadata.get('format')!r}")
    try:
        facts = json.loads(metadata["facts"])
        seed, step, info = int(facts["seed"]), int(facts["step"]), dict(facts["info"])
        own = {name: tensors[name] for name in _OWN}
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: expected a whole saved world, missing or unreadable: {error}") from error
    if not 0 <= seed < 2**63 or step < 0:
        raise ValueError(f"{path}: expected a seed in [0, 2^63) and a step of at least 0, got {seed} and {step}")
    before = tensors.get("before", own["frame"][None][:0])
    _check(path, own | {"before": before}, step, model)
    device = model.device
    map = type(model.memory.empty()).from_tensors(_below(_MAP, tensors, device))
    camera = Camera(own["c2w"], own["K"], model.size).validate()
    preceding, history = own["preceding"].to(device), None
    if model.horizon.overlap:
        history = _put_together(path, _below(_PAST, tensors, device), preceding, model)
    keyframe = _keyframe(path, _below(_GIVEN, tensors, device), model)
    state = WorldState(map, preceding, camera.to(device), seed, step, history, keyframe)
    try:
        model.check(state)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    depth, remembered = own["depth"].numpy(), own["remembered"].numpy()
    frames = torch.cat([before, own["frame"][None]]).numpy()
    return state, Observation(frames, depth, remembered, camera, info)


def _below(prefix: str, tensors: dict[str, Tensor], device: torch.device | str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t.to(device) for name, t in tensors.items() if name.startswith(prefix)}


def _keyframe(path: Path, tensors: dict[str, Tensor], model: WorldModel) -> Keyframe | None:
    """The picture that the episode was given; None if the file holds none."""
    if not tensors:
        return None
    size = tuple(model.size)
    shapes = {"frame": [3, *size], "depth": [*size], "c2w": [4, 4], "K": [3, 3]}
    if unknown := sorted(set(tensors) - set(shapes)):
        raise ValueError(f"{path}: expected a given picture of {sorted(shapes)}, got {unknown}, too")
    _expect(path, tensors, {name: (torch.float32, shape) for name, shape in shapes.items()}, _GIVEN)
    if not all(bool(torch.isfinite(tensors[name]).all()) for name in shapes):
        raise ValueError(f"{path}: expected a given picture of finite numbers")
    camera = Camera(tensors["c2w"], tensors["K"], model.size).validate()
    return Keyframe(tensors["frame"], tensors["depth"], camera)


def _taken_apart(history: History) -> dict[str, Tensor]:
    """A past as tensors."""
    places = [*history.places, *(frame.place for frame in history.earlier)]
    tensors = {
        "readout": history.readout,
        "bricks": torch.from_numpy(np.concatenate([place.bricks for place in places])),
        "masks": torch.from_numpy(np.concatenate([place.masks for place in places]).view(np.int64)),
        "counts": torch.tensor([len(place.bricks) for place in places]),
    }
    if history.text is not None:
        tensors["text"] = history.text
    if history.earlier:
        tensors["earlier"] = torch.stack([frame.latents for frame in history.earlier], dim=1)
    return tensors | {_STREAM + name: tensor for name, tensor in history.stream.tensors().items()}


def _put_together(path: Path, tensors: dict[str, Tensor], preceding: Tensor, model: WorldModel) -> History:
    """What :func:`_taken_apart` took apart."""
    codec: Any = model.codec
    try:
        readout, earlier = tensors["readout"], tensors.get("earlier", preceding[:, :0])
        places = _places(*(tensors[name].cpu().numpy() for name in ("bricks", "masks", "counts")))
        stream = codec.stream(_below(_STREAM, tensors, model.device), model.grid)
        latents = earlier.unbind(1)
        last, before = places[: len(places) - len(latents)], places[len(places) - len(latents) :]
        frames = tuple(Frame(latent, place) for latent, place in zip(latents, before, strict=True))
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"{path}: expected the past of a saved world, missing or unreadable: {error}") from error
    except ValueError as error:
        raise ValueError(f"{path}: expected the past of a saved world of this model: {error}") from error
    fits = readout.shape == preceding.shape and earlier.shape[::2] == preceding.shape[::2]
    if not fits or len(last) != preceding.shape[1] or earlier.shape[-1] != preceding.shape[-1]:
        got = f"readout {list(readout.shape)}, earlier {list(earlier.shape)} and {len(last)} places"
        raise ValueError(f"{path}: expected a past like preceding {list(preceding.shape)}, got {got}")
    if (model.text is None) != ("text" not in tensors):
        raise ValueError(f"{path}: expected a prompt if and only if this model reads prompts")
    return History(tensors.get("text"), readout, last, frames, stream)


def _places(bricks: np.ndarray, masks: np.ndarray, counts: np.ndarray) -> tuple[Occupancy, ...]:
    if not len(bricks) == len(masks) == counts.sum():
        raise ValueError(f"expected as many bricks as masks, {counts.sum()}, got {len(bricks)} and {len(masks)}")
    ends = np.cumsum(counts)[:-1]
    return tuple(map(Occupancy, np.split(bricks, ends), np.split(masks.view(np.uint64), ends)))


def _check(path: Path, own: dict[str, Tensor], step: int, model: WorldModel) -> None:
    """Raise ValueError unless these tensors fit the model."""
    size = tuple(model.size)
    latents = min(1 + step * model.horizon.keep, model.horizon.window)
    expected = {
        "preceding": (torch.float32, [model.codec.channels, latents, *model.grid]),
        "before": (torch.uint8, [model.frames - 1, *size, 3]),
        "c2w": (torch.float32, [4, 4]),
        "K": (torch.float32, [3, 3]),
        "frame": (torch.uint8, [*size, 3]),
        "depth": (torch.float32, [*size]),
        "remembered": (torch.bool, [*size]),
    }
    _expect(path, own, expected)
    if not bool(torch.isfinite(own["preceding"]).all()):
        raise ValueError(f"{path}: expected finite preceding latents")


def _expect(
    path: Path, tensors: dict[str, Tensor], expected: dict[str, tuple[torch.dtype, list[int]]], prefix: str = ""
) -> None:
    """Raise ValueError unless these tensors are there, each of its type and shape; the prefix is for the message."""
    for name, (dtype, shape) in expected.items():
        tensor = tensors.get(name)
        if tensor is None or tensor.dtype != dtype or list(tensor.shape) != shape:
            got = "nothing" if tensor is None else f"{tensor.dtype} {list(tensor.shape)}"
            raise ValueError(f"{path}: expected {prefix}{name} of {dtype} {shape} for this model, got {got}")
