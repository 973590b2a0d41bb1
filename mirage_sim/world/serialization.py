"""Saved worlds: the state and the latest observation of a world in one safetensors file."""

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
from mirage_sim.world.keyframes import Keyframe, Keyframes
from mirage_sim.world.observation import Observation
from mirage_sim.world.state import WorldState
from mirage_sim.world.world_model import WorldModel

FORMAT = "mirage_sim.world.2"
READABLE = ("mirage_sim.world.1", FORMAT)  # the first had one keyframe of estimated depth, its image as float32
_MAP, _HISTORY, _STREAM, _KEYFRAME, _KEYFRAMES = "map.", "past.", "stream.", "given.", "keyframes."
_REQUIRED = ("preceding", "c2w", "K", "frame", "depth", "remembered")


def save(path: str | Path, state: WorldState, observation: Observation) -> None:
    """Write a state and its observation, with a digest, to a file.

    The file is written under a temporary name and then renamed.
    """
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
        tensors |= {_HISTORY + name: tensor for name, tensor in _history_tensors(state.history).items()}
    if state.keyframes:
        tensors |= {_KEYFRAMES + name: tensor for name, tensor in _keyframe_tensors(state.keyframes).items()}
    facts = {"seed": state.seed, "step": state.step, "info": observation.info}
    on_host = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    save_tensors(path, on_host, {"format": FORMAT, "facts": json.dumps(facts)})


def load(path: str | Path, model: WorldModel) -> tuple[WorldState, Observation]:
    """Read a file written by :func:`save` with a model of the same kind.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is truncated, damaged, of another format, inconsistent or of another kind of model.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a saved world")
    tensors, metadata = read_tensors(path)
    if metadata.get("format") not in READABLE:
        raise ValueError(f"{path}: expected a world of a format in {READABLE}, got {metadata.get('format')!r}")
    try:
        facts = json.loads(metadata["facts"])
        seed, step, info = int(facts["seed"]), int(facts["step"]), dict(facts["info"])
        required = {name: tensors[name] for name in _REQUIRED}
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: expected a whole saved world, missing or unreadable: {error}") from error
    if not 0 <= seed < 2**63 or step < 0:
        raise ValueError(f"{path}: expected a seed in [0, 2^63) and a step of at least 0, got {seed} and {step}")
    before = tensors.get("before", required["frame"][None][:0])
    _check(path, required | {"before": before}, step, model)
    device = model.device
    map = type(model.memory.empty()).from_tensors(_with_prefix(_MAP, tensors, device))
    camera = Camera(required["c2w"], required["K"], model.size).validate()
    preceding, history = required["preceding"].to(device), None
    if model.horizon.overlap:
        history = _read_history(path, _with_prefix(_HISTORY, tensors, device), preceding, model)
    former = metadata["format"] != FORMAT
    keyframes = _read_keyframes(path, _with_prefix(_KEYFRAME if former else _KEYFRAMES, tensors, device), former, model)
    state = WorldState(map, preceding, camera.to(device), seed, step, history, keyframes)
    try:
        model.check(state)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    depth, remembered = required["depth"].numpy(), required["remembered"].numpy()
    frames = torch.cat([before, required["frame"][None]]).numpy()
    return state, Observation(frames, depth, remembered, camera, info)


def _with_prefix(prefix: str, tensors: dict[str, Tensor], device: torch.device | str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t.to(device) for name, t in tensors.items() if name.startswith(prefix)}


def _keyframe_tensors(keyframes: Keyframes) -> dict[str, Tensor]:
    """Return keyframes as named tensors; :func:`_read_keyframes` is the inverse."""
    entries = keyframes.entries
    return {
        "image": torch.stack([entry.image for entry in entries]),
        "depth": torch.stack([entry.depth for entry in entries]),
        "c2w": torch.stack([entry.camera.c2w for entry in entries]),
        "K": torch.stack([entry.camera.K for entry in entries]),
        "measured": torch.tensor([entry.measured for entry in entries]),
        "seen": torch.tensor(keyframes.seen, dtype=torch.int64),
    }


def _read_keyframes(path: Path, tensors: dict[str, Tensor], former: bool, model: WorldModel) -> Keyframes | None:
    """Return the keyframes of a file, or None if it has none.

    Args:
        path: for messages.
        tensors: of :func:`_keyframe_tensors`; of a file of the former format frame, depth, c2w and K of one keyframe.
        former: whether it is such a file.
        model: gives size and device.
    """
    if not tensors:
        return None
    if former:
        frame = tensors.pop("frame", torch.zeros(0))
        tensors = {name: tensor[None] for name, tensor in tensors.items()}
        tensors["image"] = frame[None].add(1.0).mul(127.5).round().clamp(0, 255).byte()
        tensors |= {"measured": torch.zeros(1, dtype=torch.bool), "seen": torch.zeros(1, dtype=torch.int64)}
    count, size = len(tensors.get("seen", ())), tuple(model.size)
    expected = {
        "image": (torch.uint8, [count, 3, *size]),
        "depth": (torch.float32, [count, *size]),
        "c2w": (torch.float32, [count, 4, 4]),
        "K": (torch.float32, [count, 3, 3]),
        "measured": (torch.bool, [count]),
        "seen": (torch.int64, [count]),
    }
    if unknown := sorted(set(tensors) - set(expected)):
        raise ValueError(f"{path}: expected only {sorted(expected)} for keyframes, got also {unknown}")
    _expect(path, tensors, expected, _KEYFRAMES)
    if not all(bool(torch.isfinite(tensors[name]).all()) for name in ("depth", "c2w", "K")):
        raise ValueError(f"{path}: expected keyframes of finite numbers")
    entries = [
        Keyframe(image.clone(), depth.clone(), Camera(c2w.clone(), K.clone(), model.size).validate(), bool(measured))
        for image, depth, c2w, K, measured in zip(*(tensors[name] for name in list(expected)[:5]), strict=True)
    ]
    return Keyframes(tuple(entries), tuple(tensors["seen"].tolist()))


def _history_tensors(history: History) -> dict[str, Tensor]:
    """Return a history as named tensors; :func:`_read_history` is the inverse."""
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


def _read_history(path: Path, tensors: dict[str, Tensor], preceding: Tensor, model: WorldModel) -> History:
    """Return the history that :func:`_history_tensors` described."""
    codec: Any = model.codec
    try:
        readout, earlier = tensors["readout"], tensors.get("earlier", preceding[:, :0])
        places = _places(*(tensors[name].cpu().numpy() for name in ("bricks", "masks", "counts")))
        stream = codec.stream(_with_prefix(_STREAM, tensors, model.device), model.grid)
        latents = earlier.unbind(1)
        count = len(places) - len(latents)
        frames = tuple(Frame(latent, place) for latent, place in zip(latents, places[count:], strict=True))
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"{path}: expected the history of a saved world, missing or unreadable: {error}") from error
    except ValueError as error:
        raise ValueError(f"{path}: expected the history of a world of this model: {error}") from error
    fits = readout.shape == preceding.shape and earlier.shape[::2] == preceding.shape[::2]
    if not fits or count != preceding.shape[1] or earlier.shape[-1] != preceding.shape[-1]:
        got = f"readout {list(readout.shape)}, earlier {list(earlier.shape)} and {count} places"
        raise ValueError(f"{path}: expected a history like preceding {list(preceding.shape)}, got {got}")
    if (model.text is None) != ("text" not in tensors):
        raise ValueError(f"{path}: expected a prompt if and only if this model reads prompts")
    return History(tensors.get("text"), readout, places[:count], frames, stream)


def _places(bricks: np.ndarray, masks: np.ndarray, counts: np.ndarray) -> tuple[Occupancy, ...]:
    if not len(bricks) == len(masks) == counts.sum():
        raise ValueError(f"expected as many bricks as masks, {counts.sum()}, got {len(bricks)} and {len(masks)}")
    ends = np.cumsum(counts)[:-1]
    return tuple(map(Occupancy, np.split(bricks, ends), np.split(masks.view(np.uint64), ends)))


def _check(path: Path, tensors: dict[str, Tensor], step: int, model: WorldModel) -> None:
    """Raise ValueError unless the tensors fit the model."""
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
    _expect(path, tensors, expected)
    if not bool(torch.isfinite(tensors["preceding"]).all()):
        raise ValueError(f"{path}: expected finite preceding latents")


def _expect(
    path: Path, tensors: dict[str, Tensor], expected: dict[str, tuple[torch.dtype, list[int]]], prefix: str = ""
) -> None:
    """Raise ValueError unless all expected tensors exist with their types and shapes; ``prefix`` is for the message."""
    for name, (dtype, shape) in expected.items():
        tensor = tensors.get(name)
        if tensor is None or tensor.dtype != dtype or list(tensor.shape) != shape:
            got = "nothing" if tensor is None else f"{tensor.dtype} {list(tensor.shape)}"
            raise ValueError(f"{path}: expected {prefix}{name} of {dtype} {shape} for this model, got {got}")
