"""The world of the real backbone, at toy size: overlapping chunks and a history."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from mirage_sim.geometry import Camera, VelocityLimits
from mirage_sim.memory.point_memory import resample_depth
from mirage_sim.protocols import Conditioning
from mirage_sim.world import Horizon, World, WorldModel


def walk(world: World, steps: int, forward: float = 1.0, turn: float = 0.3) -> list[np.ndarray]:
    frames = []
    for _ in range(steps):
        motion = VelocityLimits(dt=world.model.dt).motion(torch.tensor([forward, turn]))
        camera = world.camera
        frames.append(world.step(Camera(camera.c2w @ motion, camera.K, camera.size)).frames)
    return frames


def started(model: WorldModel, seed: int = 0, **arguments) -> World:
    world = World(model)
    world.reset(seed=seed, **arguments)
    return world


class RecordingDenoiser:
    """A denoiser that records its inputs and counts its calls."""

    def __init__(self, denoiser):
        self.denoiser = denoiser
        self.inputs: list[Conditioning] = []
        self.calls = 0

    def condition(self, conditioning):
        self.inputs.append(conditioning)
        return self.denoiser.condition(conditioning)

    def velocity(self, x, sigma, condition):
        self.calls += 1
        return self.denoiser.velocity(x, sigma, condition)


@pytest.fixture
def recording(backbone: WorldModel) -> WorldModel:
    return replace(backbone, denoiser=RecordingDenoiser(backbone.denoiser))


@pytest.mark.parametrize("keep", [1, 3, 8])
def test_step_of_any_length_takes_one_denoising(recording: WorldModel, keep: int):
    model = replace(recording, horizon=replace(recording.horizon, keep=keep))
    assert (model.frames, model.dt) == (4 * keep, 0.25 * keep)
    world = started(model)
    (frames,) = walk(world, 1)
    assert frames.shape == (4 * keep, 64, 96, 3)
    assert len(recording.denoiser.inputs) == 1 and recording.denoiser.calls == recording.sampler.steps
    assert recording.denoiser.inputs[0].view.visible.shape[1] == 9
    assert world.state.preceding.shape == (8, min(1 + keep, 3), 4, 6)


def test_chunk_is_conditioned_on_past_frames(recording: WorldModel):
    world = started(recording)
    made = [world.state.preceding]
    for step in range(6):
        before = world.state
        walk(world, 1, forward=0.05, turn=0.0)
        made.append(world.state.preceding[:, -1:])
        inputs, history = recording.denoiser.inputs[-1], before.history
        assert history is not None and inputs.first is not None and inputs.preceding_readout is not None
        assert torch.equal(inputs.first[0], made[step])
        past = torch.cat(made[max(step - 2, 0) : step], dim=1) if step else made[0][:, :0]
        assert torch.equal(inputs.preceding[0], past)
        assert torch.equal(inputs.preceding_readout[0], history.readout[:, :-1])
        assert inputs.text is not None and torch.equal(inputs.text[0], history.text)
        # what was seen on the way, and nothing that it is shown anyway
        earlier = torch.cat(made[: max(step - 2, 0)], dim=1) if step > 2 else made[0][:, :0]
        for reference in inputs.references[0].unbind(1):
            assert any(torch.equal(reference, frame) for frame in earlier.unbind(1))
    assert inputs.references.shape[2] > 0


def test_history_keeps_readouts_of_the_memory(backbone: WorldModel):
    world = started(backbone)
    walk(world, 2)
    before, camera = world.state, world.camera
    walk(world, 1, turn=0.0)
    view = backbone.memory.read(before.map, Camera(world.camera.c2w[None], camera.K[None], camera.size))
    assert torch.equal(world.state.history.readout[:, -1:], view.resize(backbone.grid).latents)


def test_streamed_frames_equal_one_decoding(backbone: WorldModel):
    world = started(backbone)
    latents, shown = [world.state.preceding], []
    for _ in range(3):
        shown += walk(world, 1)
        latents.append(world.state.preceding[:, -1:])
    whole = backbone.codec.decode(torch.cat(latents, dim=1)[None])[0, :, 1:]
    expected = whole.add(1).mul(127.5).round().byte().permute(1, 2, 3, 0).numpy()
    assert np.array_equal(np.concatenate(shown), expected)


def test_latents_are_written_at_camera_of_their_last_frame(backbone: WorldModel):
    model = replace(backbone, horizon=replace(backbone.horizon, keep=2))
    state, _ = model.init(torch.zeros(3, *model.size), Camera.from_fov(torch.eye(4), 60.0, model.size), 0)
    there = Camera(
        state.camera.c2w @ VelocityLimits(dt=0.5).motion(torch.tensor([1.0, 1.0])), state.camera.K, model.size
    )
    path = model.horizon.path(state.camera, there, 4)
    (after,), (chunk,) = model.advance([state], [path])
    assert chunk.depth.shape == (2, *model.size) and chunk.frames.shape[1] == 8
    at = path[3::4]
    view = model.memory.read(state.map, at)
    static = model.static_filter(
        chunk.frames[None, :, 3::4], chunk.depth[None], type(view).stack([view]), Camera.stack([at])
    )
    written = model.memory.write(
        state.map, latents=chunk.latents, frames=chunk.frames[:, 3::4], depth=chunk.depth, static=static[0], camera=at
    )
    assert after.map.points > state.map.points
    for name, tensor in written.tensors().items():
        assert torch.equal(tensor, after.map.tensors()[name])
    coarse = resample_depth(chunk.depth[1:], model.grid)
    place = model.references.place(coarse, at[1:])
    assert np.array_equal(after.history.places[-1].bricks, place.bricks)


def test_seed_and_prompt_determine_frames(backbone: WorldModel):
    first, again = started(backbone, prompt="a red room"), started(backbone, prompt="a red  room ")
    other, seeded = started(backbone, prompt="a green wood"), started(backbone, 1, prompt="a red room")
    frames = walk(first, 2)
    assert np.array_equal(frames, walk(again, 2))
    assert not np.array_equal(frames, walk(other, 2)) and not np.array_equal(frames, walk(seeded, 2))


def test_snapshots_forks_and_files_continue_bit_for_bit(backbone: WorldModel, tmp_path: Path):
    world = started(backbone)
    walk(world, 5)
    assert world.state.history.earlier
    here, (fork,) = world.snapshot(), world.fork(1)
    world.save(tmp_path / "world.safetensors")
    onward = walk(world, 3)
    assert np.array_equal(walk(fork, 3), onward)
    world.restore(here)
    assert np.array_equal(walk(world, 3), onward)
    read = World(backbone)
    seen = read.load(tmp_path / "world.safetensors")
    assert np.array_equal(seen.frames, here.observation.frames)
    assert np.array_equal(walk(read, 3), onward)


def test_world_can_be_saved_before_its_first_step(backbone: WorldModel, tmp_path: Path):
    world, read = started(backbone), World(backbone)
    world.save(tmp_path / "world.safetensors")
    read.load(tmp_path / "world.safetensors")
    assert np.array_equal(walk(read, 2), walk(world, 2))


def test_worlds_of_different_age_advance_as_one_batch(backbone: WorldModel):
    worlds = [started(backbone, seed) for seed in range(3)]
    for steps, world in zip((4, 0, 1), worlds, strict=True):
        walk(world, steps)
    states = [world.state for world in worlds]
    assert len({state.preceding.shape for state in states}) == 3
    paths = [
        backbone.horizon.path(s.camera, Camera(s.camera.c2w @ torch.eye(4), s.camera.K, s.camera.size), 4)
        for s in states
    ]
    together, chunks = backbone.advance(states, paths)
    for state, path, after, chunk in zip(states, paths, together, chunks, strict=True):
        (alone,), (single,) = backbone.advance([state], [path])
        torch.testing.assert_close(chunk.latents, single.latents, atol=1e-4, rtol=0)
        assert alone.history.text is not None and torch.equal(alone.history.text, after.history.text)
        assert len(alone.history.earlier) == len(after.history.earlier)


def test_standing_still_adds_no_references(backbone: WorldModel):
    still = Horizon(latents=3, overlap=1, preceding=0, fps=16.0)
    world = started(
        replace(
            backbone,
            horizon=still,
            depth=lambda frames, camera, known: torch.full((frames.shape[0], frames.shape[2], *backbone.size), 2.0),
        )
    )
    walk(world, 4, forward=0.0, turn=0.0)
    assert len(world.state.history.earlier) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: {k: v for k, v in tensors.items() if k != "past.readout"}, "missing or unreadable: 'readout'"),
        (lambda tensors: {k: v for k, v in tensors.items() if "stream" not in k}, "expected features of each of 1"),
        (lambda tensors: {k: v for k, v in tensors.items() if k != "past.text"}, "expected a prompt if and only if"),
        (lambda tensors: tensors | {"past.counts": tensors["past.counts"] + 1}, "as many bricks as masks"),
        (lambda tensors: tensors | {"past.readout": torch.zeros(8, 1, 4, 6)}, "expected a history like preceding"),
        (lambda tensors: tensors | {"preceding": torch.zeros(8, 1, 4, 6)}, r"preceding of torch.float32 \[8, 3, 4, 6"),
        (lambda tensors: {k: v for k, v in tensors.items() if k != "before"}, "expected before of torch.uint8"),
    ],
)
def test_load_rejects_damaged_history(backbone: WorldModel, tmp_path: Path, change, message: str):
    world, path = started(backbone), tmp_path / "world.safetensors"
    walk(world, 4)
    world.save(path)
    with safe_open(path, framework="pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}
    del metadata["sha256"]  # which would find it out before
    save_file(change(tensors), path, metadata=metadata)
    before = world.snapshot()
    with pytest.raises(ValueError, match=message) as caught:
        world.load(path)
    assert str(path) in str(caught.value) and world.snapshot() is before


def test_load_rejects_worlds_of_other_models(backbone: WorldModel, world: World, tmp_path: Path):
    other = started(backbone)
    other.save(tmp_path / "backbone.safetensors")
    with pytest.raises(ValueError, match="for this model"):
        world.load(tmp_path / "backbone.safetensors")
    world.reset()
    world.save(tmp_path / "mini.safetensors")
    with pytest.raises(ValueError, match="for this model"):
        other.load(tmp_path / "mini.safetensors")


def test_rejected_calls_change_nothing(backbone: WorldModel, world: World):
    own = started(backbone)
    before = own.snapshot()
    with pytest.raises(ValueError, match="prompt: expected at most 512 tokens, got"):
        own.reset(prompt="very " * 500)
    with pytest.raises(ValueError, match="prompt: expected a text, got 7"):
        own.reset(prompt=7)
    assert own.snapshot() is before
    with pytest.raises(ValueError, match="prompt: expected None for a model without prompts, got 'a wood'"):
        world.reset(prompt="a wood")
    with pytest.raises(ValueError, match=r"cameras: expected batch shape \[4\]"):
        backbone.advance([own.state], [Camera(own.camera.c2w[None], own.camera.K[None], backbone.size)])


def test_nan_depth_fails_the_step_and_keeps_the_world(backbone: WorldModel):
    estimator = backbone.depth.estimator
    world = started(backbone)
    before, bias = world.snapshot(), estimator.model.head.conv3.bias
    kept = bias.data.clone()
    bias.data.fill_(torch.nan)
    try:
        with pytest.raises(ValueError, match="depth: expected numbers from TransformersDepth, got NaN in"):
            walk(world, 1)
    finally:
        bias.data = kept
    assert world.snapshot() is before
    walk(world, 1)


@pytest.mark.parametrize("size", [(17, 333), (501, 23), (16, 16)])
def test_images_of_any_shape_start_a_world(backbone: WorldModel, size: tuple[int, int]):
    image = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    shown = World(backbone).reset(image=image)
    assert shown.frames.shape == (4, 64, 96, 3) and (shown.frames == shown.frame).all()


def test_incompatible_components_are_rejected(backbone: WorldModel, model: WorldModel):
    with pytest.raises(ValueError, match="size: expected multiples of 16 and 16, the codec's stride, got .65, 96"):
        replace(backbone, size=(65, 96))
    with pytest.raises(ValueError, match="overlap: expected 1 for a codec with a temporal stride of 4"):
        replace(backbone, horizon=Horizon())
    with pytest.raises(ValueError, match="codec: expected a streaming codec"):
        replace(model, horizon=backbone.horizon)
