"""Self-rollouts: which frames they visit, and that their memories equal those at run time."""

import pytest
import torch
from support.toy_world import toy_model
from torch import Tensor

from mirage_sim.data.dataset import WalkDataset
from mirage_sim.memory import EmptyMemory, PointMemory, RgbMemory
from mirage_sim.protocols import MemoryView
from mirage_sim.training.objectives.denoiser import encode_walks
from mirage_sim.training.self_rollout import Episodes, RolloutStep

STEPS = (4, 9)


def episodes(data: WalkDataset, batch: int = 5, rgb: int = 2, empty: int = 1) -> Episodes:
    model = toy_model()
    latents = encode_walks(data, model.codec)
    return Episodes(
        data, latents, model.codec, model.depth,
        batch=batch, rgb=rgb, empty=empty, steps=STEPS, samples_per_cell=2, latent_noise=0.2,
    )  # fmt: skip


def noisy_latents(step: RolloutStep, generator: torch.Generator) -> Tensor:
    return step.latents + 0.5 * torch.randn(step.latents.shape, generator=generator)


def advance(rollout: Episodes, step: RolloutStep, latents: Tensor, generator: torch.Generator) -> None:
    rollout.advance(step, latents, rollout.codec.decode_frames(latents), generator)


def test_episodes_follow_walks_and_are_replaced_at_their_end(data: WalkDataset):
    rollout = episodes(data, batch=40, rgb=10, empty=10)
    generator = torch.Generator().manual_seed(0)
    lengths, directions, true_steps, turned = [], set(), [], 0
    for _ in range(14):
        over = rollout.left == 0
        rollout.begin(generator)
        lengths += rollout.left[over].tolist()
        directions |= set(rollout.direction.tolist())
        true_steps += (rollout.true_steps[over] / rollout.left[over]).tolist()
        before = rollout.time.clone(), rollout.left.clone(), rollout.direction.clone()
        current = rollout.next()
        cameras = data.draw(rollout.walk, (rollout.time + rollout.direction)[:, None]).camera
        assert torch.equal(current.true.camera.c2w, cameras.c2w)
        advance(rollout, current, current.latents, generator)
        assert torch.equal(rollout.time, before[0] + before[2])
        assert torch.equal(rollout.left, before[1] - 1)
        turned += int((rollout.direction != before[2]).sum())
        assert rollout.time.min() >= 0 and rollout.time.max() < data.length
    assert (min(lengths), max(lengths)) == STEPS and len(lengths) > 60
    assert directions == {-1, 1}
    assert 0.1 < turned / len(lengths) < 0.6
    for least, most in ((0.0, 0.0), (1e-6, 1 - 1e-6), (1.0, 1.0)):  # generated, first part skipped, true to the end
        assert 0.15 < sum(least <= share <= most for share in true_steps) / len(true_steps) < 0.55


def test_memories_equal_those_at_run_time(data: WalkDataset):
    rollout = episodes(data)
    codec, depth_of = rollout.codec, rollout.depth
    generator = torch.Generator().manual_seed(3)
    rollout.begin(generator)
    rollout.true_steps[:] = 0
    latent, rgb = PointMemory(8, (1, 4, 4), samples_per_cell=2), RgbMemory(codec, (1, 4, 4))
    samples = {2: latent, 3: rgb}  # one sample with a latent memory and one with an RGB memory
    true = data.draw(rollout.walk, rollout.time[:, None])
    everything = torch.ones(1, 48, 64, dtype=torch.bool)
    maps = {}
    for i, memory in samples.items():
        maps[i] = memory.write(
            memory.empty(), latents=rollout.preceding[i][:, None], frames=true.frames[i, 0, :, None],
            depth=true.depth[i], static=everything, camera=true.camera[i],
        )  # fmt: skip
    for _ in range(4):
        current = rollout.next()
        for i, memory in samples.items():
            camera = current.true.camera[i]
            atol = 1e-4 if memory is latent else 0.02  # the RGB memory keeps colours as bytes
            expected = memory.read(maps[i], camera).resize((24, 32))
            for name in ("visible", "depth", "offset", "log_scale", "latents"):
                found = getattr(current.conditioning.view, name)[i]
                torch.testing.assert_close(found, getattr(expected, name), atol=atol, rtol=1e-4)
        latents = noisy_latents(current, generator)
        frames = codec.decode_frames(latents).clamp(-1, 1)
        depth = depth_of(frames[:, :, None], current.true.camera, current.conditioning.view.surface((12, 16)))
        advance(rollout, current, latents, generator)
        assert torch.equal(rollout.preceding, latents)
        for i, memory in samples.items():
            maps[i] = memory.write(
                maps[i], latents=latents[i][:, None], frames=frames[i][:, None], depth=depth[i],
                static=everything, camera=current.true.camera[i],
            )  # fmt: skip


def test_samples_without_memory_see_the_empty_memory(data: WalkDataset):
    rollout = episodes(data)
    rollout.begin(torch.Generator().manual_seed(0))
    current = rollout.next()
    empty = EmptyMemory(8, (1, 4, 4)).read(None, current.true.camera[0]).resize((24, 32))
    for name in MemoryView.__dataclass_fields__:
        assert torch.equal(getattr(current.conditioning.view, name)[0], getattr(empty, name)), name
    assert current.conditioning.view.visible.flatten(1).any(1).tolist() == [False, True, True, True, True]


@pytest.mark.parametrize("true_steps", [0, 2])
def test_cells_with_generated_points_are_not_observed(true_steps: int, data: WalkDataset):
    rollout = episodes(data, batch=6, rgb=1, empty=0)
    generator = torch.Generator().manual_seed(1)
    rollout.begin(generator)
    rollout.true_steps[:], rollout.skipped[:] = true_steps, False
    tag = 100.0
    count = 0
    for step in range(4):
        current = rollout.next()
        shown = current.conditioning.view.resize((12, 16))
        visible, value = shown.visible[:-1, 0], shown.latents[:-1, 0, 0]  # an RGB memory shows no single points
        generated = visible & (value == tag)
        assert torch.equal(current.observed[:-1, 0], visible & ~generated)
        assert step > true_steps or not generated.any()
        count += int(generated.sum())
        advance(rollout, current, torch.full_like(current.latents, tag), generator)
    assert count > 0


def test_skipped_frames_are_not_written(data: WalkDataset):
    rollout = episodes(data)
    generator = torch.Generator().manual_seed(0)
    rollout.begin(generator)
    rollout.true_steps[:], rollout.skipped[:] = 2, True
    points = [map.kept.sum(1) for map in rollout.maps]
    for step in range(4):
        current = rollout.next()
        advance(rollout, current, noisy_latents(current, generator), generator)
        now = [map.kept.sum(1) for map in rollout.maps]
        assert all(torch.equal(*pair) for pair in zip(now, points, strict=True)) == (step < 2)


def test_maps_hold_only_kept_points(data: WalkDataset):
    rollout = episodes(data)
    generator = torch.Generator().manual_seed(0)
    for _ in range(12):  # enough steps for every episode to be replaced
        rollout.begin(generator)
        for map in rollout.maps:
            kept = map.kept.sum(1)
            assert map.points.shape[1] == kept.max()
            order = torch.arange(map.points.shape[1])
            assert torch.equal(map.kept, order < kept[:, None])
        current = rollout.next()
        advance(rollout, current, noisy_latents(current, generator), generator)


@pytest.mark.parametrize("steps", [(0, 4), (5, 4), (4, 40)])
def test_lengths_that_no_walk_has_are_rejected(steps: tuple[int, int], data: WalkDataset):
    model = toy_model()
    with pytest.raises(ValueError, match="expected least and greatest length of an episode, 1 to 39 on walks of 40"):
        Episodes(
            data, torch.zeros(3, 40, 8, 12, 16), model.codec, model.depth,
            batch=3, rgb=1, empty=0, steps=steps, samples_per_cell=2, latent_noise=0.2,
        )  # fmt: skip
