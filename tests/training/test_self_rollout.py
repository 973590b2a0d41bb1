"""Episodes that a model drives itself: where they go, and that their memories are those of the run time."""

import pytest
import torch
from support.toy_world import toy_model
from torch import Tensor

from mirage_sim.data.dataset import WalkDataset
from mirage_sim.memory import EmptyMemory, PointMemory, RgbMemory
from mirage_sim.protocols import MemoryView
from mirage_sim.training.objectives.denoiser import encode_walks
from mirage_sim.training.self_rollout import Episodes, Moment

STEPS = (4, 9)


def episodes(data: WalkDataset, batch: int = 5, rgb: int = 2, empty: int = 1) -> Episodes:
    model = toy_model()
    latents = encode_walks(data, model.codec)
    return Episodes(
        data, latents, model.codec, model.depth,
        batch=batch, rgb=rgb, empty=empty, steps=STEPS, samples_per_cell=2, latent_noise=0.2,
    )  # fmt: skip


def draw(moment: Moment, generator: torch.Generator) -> Tensor:
    """Something else than the truth."""
    return moment.latents + 0.5 * torch.randn(moment.latents.shape, generator=generator)


def go_on(under_way: Episodes, moment: Moment, drawn: Tensor, generator: torch.Generator) -> None:
    under_way.advance(moment, drawn, under_way.codec.decode_frames(drawn), generator)


def test_they_follow_walks_in_both_directions_and_make_room_for_others(data: WalkDataset):
    under_way = episodes(data, batch=40, rgb=10, empty=10)
    generator = torch.Generator().manual_seed(0)
    lengths, directions, true_steps, turned = [], set(), [], 0
    for _ in range(14):
        over = under_way.left == 0
        under_way.begin(generator)
        lengths += under_way.left[over].tolist()
        directions |= set(under_way.direction.tolist())
        true_steps += (under_way.true_steps[over] / under_way.left[over]).tolist()
        before = under_way.time.clone(), under_way.left.clone(), under_way.direction.clone()
        moment = under_way.next()
        cameras = data.draw(under_way.walk, (under_way.time + under_way.direction)[:, None]).camera
        assert torch.equal(moment.true.camera.c2w, cameras.c2w)
        go_on(under_way, moment, moment.latents, generator)
        assert torch.equal(under_way.time, before[0] + before[2])
        assert torch.equal(under_way.left, before[1] - 1)
        turned += int((under_way.direction != before[2]).sum())
        assert under_way.time.min() >= 0 and under_way.time.max() < data.length
    assert (min(lengths), max(lengths)) == STEPS and len(lengths) > 60
    assert directions == {-1, 1}
    assert 0.1 < turned / len(lengths) < 0.6
    for least, most in ((0.0, 0.0), (1e-6, 1 - 1e-6), (1.0, 1.0)):  # own, first skipped, true to the end
        assert 0.15 < sum(least <= share <= most for share in true_steps) / len(true_steps) < 0.55


def test_memories_are_those_of_the_run_time(data: WalkDataset):
    under_way = episodes(data)
    codec, depth_of = under_way.codec, under_way.depth
    generator = torch.Generator().manual_seed(3)
    under_way.begin(generator)
    under_way.true_steps[:] = 0
    latent, rgb = PointMemory(8, (1, 4, 4), samples_per_cell=2), RgbMemory(codec, (1, 4, 4))
    samples = {2: latent, 3: rgb}  # a sample with latent memory and one with RGB memory
    true = data.draw(under_way.walk, under_way.time[:, None])
    everything = torch.ones(1, 48, 64, dtype=torch.bool)
    maps = {}
    for i, memory in samples.items():
        maps[i] = memory.write(
            memory.empty(), latents=under_way.preceding[i][:, None], frames=true.frames[i, 0, :, None],
            depth=true.depth[i], static=everything, camera=true.camera[i],
        )  # fmt: skip
    for _ in range(4):
        moment = under_way.next()
        for i, memory in samples.items():
            camera = moment.true.camera[i]
            atol = 1e-4 if memory is latent else 0.02  # the RGB memory keeps colours as bytes
            expected = memory.read(maps[i], camera).resize((24, 32))
            for name in ("visible", "depth", "offset", "log_scale", "latents"):
                found = getattr(moment.conditioning.view, name)[i]
                torch.testing.assert_close(found, getattr(expected, name), atol=atol, rtol=1e-4)
        drawn = draw(moment, generator)
        frames = codec.decode_frames(drawn).clamp(-1, 1)
        depth = depth_of(frames[:, :, None], moment.true.camera, moment.conditioning.view.surface((12, 16)))
        go_on(under_way, moment, drawn, generator)
        assert torch.equal(under_way.preceding, drawn)
        for i, memory in samples.items():
            maps[i] = memory.write(
                maps[i], latents=drawn[i][:, None], frames=frames[i][:, None], depth=depth[i],
                static=everything, camera=moment.true.camera[i],
            )  # fmt: skip


def test_samples_without_memory_see_what_the_empty_memory_shows(data: WalkDataset):
    under_way = episodes(data)
    under_way.begin(torch.Generator().manual_seed(0))
    moment = under_way.next()
    empty = EmptyMemory(8, (1, 4, 4)).read(None, moment.true.camera[0]).resize((24, 32))
    for name in MemoryView.__dataclass_fields__:
        assert torch.equal(getattr(moment.conditioning.view, name)[0], getattr(empty, name)), name
    assert moment.conditioning.view.visible.flatten(1).any(1).tolist() == [False, True, True, True, True]


@pytest.mark.parametrize("true_steps", [0, 2])
def test_what_the_model_drew_is_not_remembered_of_the_truth(true_steps: int, data: WalkDataset):
    under_way = episodes(data, batch=6, rgb=1, empty=0)
    generator = torch.Generator().manual_seed(1)
    under_way.begin(generator)
    under_way.true_steps[:], under_way.skipped[:] = true_steps, False
    tag = 100.0
    own = 0
    for step in range(4):
        moment = under_way.next()
        shown = moment.conditioning.view.resize((12, 16))
        visible, shade = shown.visible[:-1, 0], shown.latents[:-1, 0, 0]  # an RGB memory shows no single points
        drawn_by_model = visible & (shade == tag)
        assert torch.equal(moment.remembered[:-1, 0], visible & ~drawn_by_model)
        assert step > true_steps or not drawn_by_model.any()
        own += int(drawn_by_model.sum())
        go_on(under_way, moment, torch.full_like(moment.latents, tag), generator)
    assert own > 0


def test_what_was_skipped_is_not_remembered(data: WalkDataset):
    under_way = episodes(data)
    generator = torch.Generator().manual_seed(0)
    under_way.begin(generator)
    under_way.true_steps[:], under_way.skipped[:] = 2, True
    points = [map.kept.sum(1) for map in under_way.maps]
    for step in range(4):
        moment = under_way.next()
        go_on(under_way, moment, draw(moment, generator), generator)
        now = [map.kept.sum(1) for map in under_way.maps]
        assert all(torch.equal(*pair) for pair in zip(now, points, strict=True)) == (step < 2)


def test_maps_hold_only_points_that_are_kept(data: WalkDataset):
    under_way = episodes(data)
    generator = torch.Generator().manual_seed(0)
    for _ in range(12):  # long enough for every episode to have been replaced
        under_way.begin(generator)
        for map in under_way.maps:
            kept = map.kept.sum(1)
            assert map.points.shape[1] == kept.max()
            order = torch.arange(map.points.shape[1])
            assert torch.equal(map.kept, order < kept[:, None])
        moment = under_way.next()
        go_on(under_way, moment, draw(moment, generator), generator)


@pytest.mark.parametrize("steps", [(0, 4), (5, 4), (4, 40)])
def test_lengths_that_no_walk_has(steps: tuple[int, int], data: WalkDataset):
    model = toy_model()
    with pytest.raises(ValueError, match="expected least and greatest length of an episode, 1 to 39 on walks of 40"):
        Episodes(
            data, torch.zeros(3, 40, 8, 12, 16), model.codec, model.depth,
            batch=3, rgb=1, empty=0, steps=steps, samples_per_cell=2, latent_noise=0.2,
        )  # fmt: skip
