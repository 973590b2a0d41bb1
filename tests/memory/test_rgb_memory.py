import torch
from torch.nn import functional as F

from mirage_sim.geometry import Camera, se3_exp
from mirage_sim.memory import RgbMemory
from mirage_sim.memory.blocks import GENERATED
from mirage_sim.memory.rgb_memory import encode_rendering
from mirage_sim.training.batched_memory import BatchMap

SIZE = (12, 16)


class Unshuffle:
    """A lossless codec: the pixels of each cell as channels."""

    stride = (1, 4, 4)
    channels = 48

    def encode(self, video: torch.Tensor) -> torch.Tensor:
        return F.pixel_unshuffle(video[:, :, 0], 4)[:, :, None]

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return F.pixel_shuffle(latents[:, :, 0], 4)[:, :, None]


CODEC = Unshuffle()
CAMERA = Camera.from_fov(torch.eye(4)[None], 60.0, SIZE)


def frame(seed: int = 0) -> torch.Tensor:
    levels = torch.randint(0, 256, (3, 1, *SIZE), generator=torch.Generator().manual_seed(seed))
    return levels / 127.5 - 1.0


def write(memory: RgbMemory, map: object, frames: torch.Tensor, depth: torch.Tensor, camera: Camera = CAMERA) -> object:
    static = torch.ones(depth.shape, dtype=torch.bool)
    return memory.write(map, latents=torch.zeros(48, 1, 3, 4), frames=frames, depth=depth, static=static, camera=camera)


def test_rgb_memory_returns_the_frame_for_the_same_view() -> None:
    memory = RgbMemory(CODEC, CODEC.stride)
    frames, depth = frame(), torch.rand(1, *SIZE) + 2.0
    map = write(memory, memory.empty(), frames, depth)
    view = memory.read(map, CAMERA)
    assert bool(view.visible.all()) and map.points == 12 * 16
    assert torch.equal(CODEC.decode(view.latents[None])[0], frames)
    cells = F.pixel_unshuffle(depth[None], 4)[0]
    assert torch.allclose(view.depth[0], cells.sort(dim=0).values[7])
    assert view.offset.abs().max() < 1e-6 and view.log_scale.abs().max() < 1e-6
    shown = depth.flatten()[view.source.flatten() - GENERATED]
    assert torch.allclose(shown, view.depth.flatten()), "the source is the pixel whose depth is shown"


def test_offset_and_log_scale_are_pixel_means() -> None:
    memory = RgbMemory(CODEC, CODEC.stride)
    map = write(memory, memory.empty(), frame(), torch.full((1, *SIZE), 2.0))
    nearer = se3_exp(torch.tensor([[0.0, 0.0, 1.0, 0.0, 0.0, 0.0]]))
    view = memory.read(map, Camera(nearer, CAMERA.K, CAMERA.size))
    torch.testing.assert_close(
        view.log_scale[view.visible], torch.full_like(view.log_scale[view.visible], -1.0)
    )  # half as far
    # a quarter of a pixel to the right at 2 m: all points fall a sixteenth of a cell to the left
    aside = se3_exp(torch.tensor([[0.25 * 2.0 / float(CAMERA.K[0, 0, 0]), 0.0, 0.0, 0.0, 0.0, 0.0]]))
    view = memory.read(map, Camera(aside, CAMERA.K, CAMERA.size))
    expected = torch.full_like(view.offset[0], -0.25 / 4)
    torch.testing.assert_close(view.offset[0][view.visible], expected[view.visible], atol=1e-4, rtol=0)


def test_a_cell_is_visible_if_half_its_pixels_are() -> None:
    memory = RgbMemory(CODEC, CODEC.stride)
    frames, depth = frame(), torch.full((1, *SIZE), 2.0)
    depth[0, :2, :4] = 0.0  # 8 of 16 unknown
    depth[0, :2, 4:8] = 0.0
    depth[0, 2, 4] = 0.0  # 9 of 16 unknown
    view = memory.read(write(memory, memory.empty(), frames, depth), CAMERA)
    assert view.visible[0, 0].tolist() == [True, False, True, True] and bool(view.visible[0, 1:].all())
    decoded = CODEC.decode(view.latents[None])[0]
    assert not bool(decoded[:, 0, :2, :4].any()), "holes in a visible cell are grey"
    assert not bool(decoded[:, 0, :4, 4:8].any()) and float(view.depth[0, 0, 1]) == 0.0
    assert int(view.source[0, 0, 1]) == -1
    assert torch.equal(decoded[:, 0, 4:], frames[:, 0, 4:])


def test_standing_still_writes_nothing_and_old_map_is_unchanged() -> None:
    memory = RgbMemory(CODEC, CODEC.stride)
    depth = torch.full((1, *SIZE), 2.0)
    map = write(memory, memory.empty(), frame(), depth)
    assert write(memory, map, frame(1), depth * 1.2).points == map.points
    turned = Camera(se3_exp(torch.tensor([[0.0, 0, 0, 0, 0.3, 0]])), CAMERA.K, SIZE)
    assert write(memory, map, frame(2), depth, turned).points > map.points == 192


def test_several_cameras_and_max_points() -> None:
    memory = RgbMemory(CODEC, CODEC.stride, max_points=100)
    map = write(memory, memory.empty(), frame(), torch.full((1, *SIZE), 2.0))
    assert map.points <= 100
    both = Camera(CAMERA.c2w.expand(2, 4, 4), CAMERA.K.expand(2, 3, 3), SIZE)
    view = memory.read(map, both)
    assert view.latents.shape == (48, 2, 3, 4) and view.source.shape == (2, 3, 4)
    assert torch.equal(view.latents[:, 0], view.latents[:, 1])


def test_training_batch_agrees_with_memory() -> None:
    memory, depth = RgbMemory(CODEC, CODEC.stride), frame(2)[:2, 0] * 0.5 + 2.5
    depth[:, :6, :9] = 0.0  # unknown: holes
    batch = Camera(CAMERA.c2w.expand(2, 4, 4), CAMERA.K.expand(2, 3, 3), SIZE)
    moved = Camera(se3_exp(torch.tensor([[0.1, 0, 0.2, 0, 0.1, 0], [-0.2, 0, 0, 0, 0, 0]])), batch.K, SIZE)
    frames = torch.stack([frame(0), frame(1)])
    seen = BatchMap.empty(2, 3).write(frames[:, :, 0], depth, batch).read(moved)
    view = encode_rendering(CODEC, seen, (3, 4))
    for i in range(2):
        alone = memory.read(write(memory, memory.empty(), frames[i], depth[i : i + 1]), moved[i : i + 1])
        assert torch.equal(view.visible[i], alone.visible) and 0 < int(alone.visible.sum()) < 12
        assert torch.allclose(view.latents[i], alone.latents, atol=1e-6) and torch.equal(view.depth[i], alone.depth)
        assert view.source[i].shape == alone.source.shape and view.offset[i].shape == alone.offset.shape
