import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.toy_world import toy_starts, untrained_model
from torch import Tensor
from torch.overrides import TorchFunctionMode

from mirage_sim.geometry import Camera, VelocityLimits, cells_of, projection
from mirage_sim.memory import rendering
from mirage_sim.world import WorldState
from mirage_sim.world.images import to_tensor


def begin(model, frame, seed=0) -> WorldState:
    camera = Camera.from_fov(torch.eye(4), 60.0, model.size)
    return model.init(to_tensor(frame), camera, seed)[0]


def ahead(state: WorldState, forward: float, turn: float) -> Camera:
    c2w = state.camera.c2w @ VelocityLimits().motion(torch.tensor([forward, turn]))
    return Camera(c2w[None], state.camera.K[None], state.camera.size)


def fingerprint(state: WorldState) -> list[torch.Tensor]:
    return [*(t.clone() for t in state.map.tensors().values()), state.preceding.clone(), state.camera.c2w.clone()]


def test_chunk_has_documented_shapes(model, starts):
    state = begin(model, starts[0])
    (after,), (chunk,) = model.advance([state], [ahead(state, 1.0, 0.5)])
    height, width = model.size
    assert chunk.frames.shape == (3, 1, height, width)
    assert chunk.depth.shape == (1, height, width)
    assert chunk.latents.shape == (8, 1, height // 4, width // 4)
    assert chunk.view.visible.shape == (1, height // 2, width // 2)
    assert chunk.known.shape == (1, height // 4, width // 4)
    assert torch.equal(chunk.known, chunk.view.surface((height // 4, width // 4)))
    assert set(chunk.seconds) == {"read", "denoise", "decode", "depth", "reproject", "write"}
    assert chunk.frames.abs().max() <= 1
    assert (after.step, after.seed) == (1, 0)
    assert after.map.points > state.map.points > 0


def test_advance_does_not_change_its_arguments(model, starts):
    state = begin(model, starts[0])
    before = fingerprint(state)
    model.advance([state], [ahead(state, 1.0, 1.0)])
    assert all(torch.equal(a, b) for a, b in zip(before, fingerprint(state), strict=True))


def test_advance_is_a_function_of_its_arguments(model, starts):
    state = begin(model, starts[0])
    camera = ahead(state, -1.0, 0.3)
    (first,), (chunk,) = model.advance([state], [camera])
    torch.randn(17)  # a global generator must not matter
    (second,), (again,) = model.advance([state], [camera])
    assert torch.equal(chunk.frames, again.frames)
    assert all(torch.equal(a, b) for a, b in zip(fingerprint(first), fingerprint(second), strict=True))


def test_seed_determines_generated_content(model, starts):
    one, other = begin(model, starts[0], 1), begin(model, starts[0], 2)
    camera = ahead(one, 0.0, 1.0)
    _, (first, second) = model.advance([one, other], [camera, camera])
    assert not torch.equal(first.latents, second.latents)


def test_batch_of_three_worlds_equals_three_single_worlds(model, starts):
    states = [begin(model, frame, seed) for seed, frame in enumerate(starts)]
    for step in range(4):
        cameras = [ahead(state, 1.0, turn) for state, turn in zip(states, (-1.0, 0.1 * step, 1.0), strict=True)]
        batched, chunks = model.advance(states, cameras)
        for state, camera, chunk in zip(states, cameras, chunks, strict=True):
            _, (single,) = model.advance([state], [camera])
            # the same read, bit for bit; convolutions over another batch size may round differently
            assert torch.equal(single.view.source, chunk.view.source)
            assert torch.equal(single.view.latents, chunk.view.latents)
            torch.testing.assert_close(single.frames, chunk.frames, atol=1e-4, rtol=0)
            torch.testing.assert_close(single.depth, chunk.depth, atol=1e-3, rtol=0)
        states = batched


class Dome:
    """Depth of a world that is the inside of a sphere of 3 m around the camera."""

    def __call__(self, frames: Tensor, camera: Camera, known: Tensor) -> Tensor:
        height, width = camera.size
        v, u = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
        K = camera.K[..., None, None, :, :]
        x, y = (u - K[..., 0, 2]) / K[..., 0, 0], (v - K[..., 1, 2]) / K[..., 1, 1]
        return 3.0 / (1 + x * x + y * y).sqrt()


def test_view_is_restored_after_looking_away(model, starts):
    model = replace(model, depth=Dome())
    state = begin(model, starts[0])
    home = ahead(state, 0.0, 0.0)
    first_ids = state.map.ids()
    for turn in [1.0] * 8 + [-1.0] * 8:
        (state,), (chunk,) = model.advance([state], [ahead(state, 0.0, turn)])
    (state,), (chunk,) = model.advance([state], [home])
    of_the_start = torch.isin(chunk.view.source, first_ids) & chunk.view.visible
    height, width = model.size
    assert cells_of(of_the_start, (height // 4, width // 4)).any(-1).float().mean() > 0.95


def test_static_camera_sees_the_same_frame(model, starts):
    model = replace(model, reprojection=None)
    state = begin(model, starts[0])
    seen = state.preceding
    for _ in range(3):
        (state,), (chunk,) = model.advance([state], [ahead(state, 0.0, 0.0)])
        assert chunk.known.count_nonzero() == chunk.known.numel()
        torch.testing.assert_close(chunk.latents, seen, atol=0.01, rtol=0)


def test_static_camera_sees_the_start_image(model, starts):
    model = replace(model, depth=Dome())
    state = begin(model, starts[0])
    for _ in range(3):
        (state,), (chunk,) = model.advance([state], [ahead(state, 0.0, 0.0)])
        torch.testing.assert_close(chunk.frames[:, 0], to_tensor(starts[0]), atol=1e-3, rtol=0)
    decoded = replace(model, reprojection=None)
    state = begin(decoded, starts[0])
    _, (chunk,) = decoded.advance([state], [ahead(state, 0.0, 0.0)])
    assert (chunk.frames[:, 0] - to_tensor(starts[0])).abs().max() > 0.05
    assert "reproject" not in chunk.seconds


def test_latents_encode_the_reprojected_frame(model, starts):
    state = begin(model, starts[0])
    (after,), (chunk,) = model.advance([state], [ahead(state, 0.5, 0.2)])
    with torch.inference_mode():
        assert torch.equal(chunk.latents, model.codec.encode(chunk.frames[None])[0])
    assert torch.equal(after.preceding[:, -1:], chunk.latents)
    assert after.keyframe is state.keyframe


def test_copying_shares_the_model(model):
    assert copy.deepcopy({"world": model})["world"] is model


@pytest.mark.parametrize("change", ["size", "batch", "count", "nothing"])
def test_wrong_cameras_are_rejected(model, starts, change):
    state = begin(model, starts[0])
    camera = ahead(state, 1.0, 0.0)
    wrong = {
        "size": ([state], [camera.resize((24, 32))]),
        "batch": ([state, state], [camera, Camera.stack([camera[0], camera[0]])]),
        "count": ([state, state], [camera]),
        "nothing": ([], []),
    }
    with pytest.raises(ValueError, match="cameras: expected"):
        model.advance(*wrong[change])


def test_wrong_images_are_rejected(model):
    camera = Camera.from_fov(torch.eye(4), 60.0, model.size)
    with pytest.raises(ValueError, match=r"image: expected .* \[3, 48, 64\] .*, got torch.float32 \[3, 10, 10\]"):
        model.init(torch.zeros(3, 10, 10), camera, 0)
    with pytest.raises(ValueError, match=r"image: expected a float32 tensor .*, got torch.uint8 \[3, 48, 64\]"):
        model.init(torch.zeros(3, 48, 64, dtype=torch.uint8), camera, 0)
    with pytest.raises(ValueError, match=r"image: expected a float32 tensor .*, got ndarray"):
        model.init(np.zeros((3, 48, 64), np.float32), camera, 0)
    with pytest.raises(ValueError, match="camera: expected a single camera"):
        model.init(torch.zeros(3, 48, 64), camera.resize((10, 10)), 0)


@pytest.mark.parametrize("value", [0, -0.1, float("nan"), float("inf"), True, "0.1"])
def test_wrong_reprojection_is_rejected(model, value):
    with pytest.raises(ValueError, match="reprojection: expected None or a positive number of pixels, got"):
        replace(model, reprojection=value)


def test_reprojection_with_overlapping_chunks_is_rejected(backbone):
    with pytest.raises(ValueError, match="reprojection: expected None with overlapping chunks, got 1.0"):
        replace(backbone, reprojection=1.0)


T = torch.Tensor
HOST_READS = {T.item, T.tolist, T.cpu, T.numpy, T.__bool__, T.__int__, T.__float__, T.__index__}


class HostReads(TorchFunctionMode):
    """Collects every tensor whose numbers Python asks for."""

    def __init__(self):
        super().__init__()
        self.tensors = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in HOST_READS:
            self.tensors.append(args[0])
        return function(*args, **(kwargs or {}))


def test_step_copies_no_latents_or_points_to_the_host(model, starts, monkeypatch):
    """As it goes on other devices: a step reads two cameras, and lists and boxes of blocks, whatever is remembered."""
    monkeypatch.setattr(rendering, "_compiled", lambda map, camera: False)
    monkeypatch.setattr(projection, "log_scale_of", lambda ratio: torch.log2(ratio).float())
    state = begin(model, starts[0])
    for step in range(12):
        camera = ahead(state, 1.0, 1.0 - 0.3 * step)
        with HostReads() as reads:
            (state,), _ = model.advance([state], [camera])
        # pose and intrinsics, twice moved and looked at; keys, counts and boxes of new blocks, likewise; rows, thrice
        assert len(reads.tensors) <= 2 * 2 * 2 + 3 * 2 + 3
        for tensor in reads.tensors:
            assert tuple(tensor.shape) in [(4, 4), (3, 3)] or tensor.numel() <= 6 * len(state.map.blocks)


def test_number_of_threads_does_not_change_bits():
    """At the mini world's own sizes, because what is split among threads depends on them."""
    model = untrained_model()
    frame = torch.nn.functional.interpolate(torch.from_numpy(toy_starts()[1:2]).permute(0, 3, 1, 2), size=model.size)
    made = {}
    before = torch.get_num_threads()
    try:
        for count in (1, 2, 4):
            torch.set_num_threads(count)
            state = begin(model, frame[0].permute(1, 2, 0).numpy())
            made[count] = [state.preceding]
            for turn in (1.0, -0.5):
                (state,), (chunk,) = model.advance([state], [ahead(state, 0.7, turn)])
                made[count] += [chunk.latents, chunk.frames, chunk.depth]
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(*pair) for pair in zip(made[1], made[2], strict=True))
    assert all(torch.equal(*pair) for pair in zip(made[1], made[4], strict=True))
