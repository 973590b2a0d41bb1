import sys
from collections.abc import Sequence

import pytest
import torch

from mirage_sim.geometry import Camera
from mirage_sim.models.dynamic_objects import DynamicObjectFilter, Qwen3VL, Sam3, parse_names
from mirage_sim.protocols import MemoryView

SIZE = (6, 8)


def bright(images: torch.Tensor, names: Sequence[str]) -> torch.Tensor:
    """A segmenter for two names: lamps are bright, holes are dark."""
    found = torch.zeros(len(images), *SIZE, dtype=torch.bool)
    if "lamp" in names:
        found |= images.mean(1) > 0.8
    if "hole" in names:
        found |= images.mean(1) < 0.2
    return found


def scene(worlds: int, frames: int) -> torch.Tensor:
    video = torch.zeros(worlds, 3, frames, *SIZE)
    video[..., 0, 0] = 1.0
    video[..., 5, 7] = -1.0
    return video


def apply(static_filter: DynamicObjectFilter, video: torch.Tensor) -> torch.Tensor:
    worlds, _, frames, *_ = video.shape
    empty = torch.zeros(worlds, frames, 3, 4)
    view = MemoryView(empty[:, None], empty > 0, empty, empty.long(), empty[:, None], empty)
    camera = Camera.from_fov(torch.eye(4).expand(worlds, frames, 4, 4), 60, SIZE)
    return static_filter(video, torch.ones(worlds, frames, *SIZE), view, camera)


def test_named_objects_are_excluded() -> None:
    found = apply(DynamicObjectFilter(bright, names=["lamp"]), scene(2, 3))
    assert found.shape == (2, 3, *SIZE)
    assert not found[..., 0, 0].any() and int((~found).sum()) == 6
    assert int((~apply(DynamicObjectFilter(bright, names=["lamp", "hole"]), scene(1, 1))).sum()) == 2


def test_namer_sees_first_and_last_frame_and_adds_names() -> None:
    shown = []

    def name(images: torch.Tensor) -> list[str]:
        shown.append(images)
        return ["hole"] if len(shown) == 1 else []

    video = scene(2, 5)
    video[0, :, 4, 3, 3] = 1.0
    found = apply(DynamicObjectFilter(bright, names=["lamp"], namer=name), video)
    assert [len(images) for images in shown] == [2, 2]
    assert torch.equal(shown[0], (video[0, :, [0, 4]].transpose(0, 1) + 1) / 2)
    assert not found[0, :, 5, 7].any() and found[1, :, 5, 7].all()
    shown.clear()
    assert apply(DynamicObjectFilter(bright, namer=lambda images: []), video).all()
    apply(DynamicObjectFilter(bright, namer=name), scene(1, 1))
    assert [len(images) for images in shown] == [1]


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        ("Person, dog.", ["person", "dog"]),
        ("1. Car\n2. Person\n3. car", ["car", "person"]),
        ("none", []),
        ("None.", []),
        ("", []),
        ("- office chair; trolley", ["office chair", "trolley"]),
        ("I can see a street on which nothing moves, bicycle", ["bicycle"]),
        (", ".join(f"thing{chr(97 + n)}" for n in range(26)), [f"thing{chr(97 + n)}" for n in range(20)]),
    ],
)
def test_answers_are_parsed_into_names(answer: str, names: list[str]) -> None:
    assert parse_names(answer) == names


@pytest.mark.parametrize("library", ["torchvision", "transformers"])
@pytest.mark.parametrize("model", [Sam3, Qwen3VL])
def test_missing_library_is_named(model: type, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", sys)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=rf"{library}: expected it to be installed \(pip install 'mirage_sim\[wan\]'"):
        model()


def test_bad_arguments_are_rejected() -> None:
    with pytest.raises(ValueError, match="names: expected a list of names where there is no namer"):
        DynamicObjectFilter(bright)
    with pytest.raises(ValueError, match="names: expected a list of names"):
        DynamicObjectFilter(bright, names="person")
