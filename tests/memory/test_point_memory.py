import pytest
import torch
from support.reference_memory import TwinMemory

from benchmarks.scenes import furnished_room, ray_cast
from mirage_sim.geometry import Camera, se3_exp, unproject
from mirage_sim.memory import EmptyMemory, LatentMap, PointMemory
from mirage_sim.memory.blocks import GENERATED
from mirage_sim.memory.latent_map import InView
from mirage_sim.memory.point_memory import resample_depth, resample_static

STRIDE = (1, 4, 4)
SIZE = (24, 32)
C = 3


def cameras(*twists: list[float]) -> Camera:
    return Camera.from_fov(se3_exp(torch.tensor(twists)), 60.0, SIZE)


def scene(camera: Camera) -> torch.Tensor:
    return ray_cast(camera, *furnished_room())


def frame(camera: Camera, seed: int = 0, depth: torch.Tensor | None = None) -> dict:
    generator = torch.Generator().manual_seed(seed)
    T = len(camera)
    return {
        "latents": torch.randn(C, T, SIZE[0] // 4, SIZE[1] // 4, generator=generator),
        "frames": torch.zeros(3, T, *SIZE),
        "depth": scene(camera) if depth is None else depth,
        "static": torch.ones(T, *SIZE, dtype=torch.bool),
        "camera": camera,
    }


def fields(view: object) -> dict[str, torch.Tensor]:
    return {name: getattr(view, name) for name in ("latents", "visible", "depth", "source", "offset", "log_scale")}


def assert_same(a: object, b: object) -> None:
    for name, tensor in fields(a).items():
        assert torch.equal(tensor, getattr(b, name)), name


def walk(steps: int, radius: float = 1.0) -> list[Camera]:
    """Once around a circle, looking along it."""
    out = []
    for i in range(steps):
        angle = torch.tensor(2 * torch.pi * i / steps)
        pose = se3_exp(torch.tensor([0.0, 0, 0, 0, float(angle), 0]))
        pose[:3, 3] = torch.stack([-radius * angle.cos(), torch.zeros(()), radius * angle.sin()])
        out.append(Camera.from_fov(pose[None], 60.0, SIZE))
    return out


@pytest.mark.parametrize(("tolerance", "samples_per_cell"), [(0.0, 1), (0.1, 1), (0.1, 2)])
def test_bits_equal_reference_implementation(threads: int, tolerance: float, samples_per_cell: int) -> None:
    memory, reference = (
        PointMemory(C, STRIDE, tolerance, samples_per_cell=samples_per_cell),
        TwinMemory(4, tolerance, 2.0, samples_per_cell),
    )
    map = memory.empty()
    generator = torch.Generator().manual_seed(3)
    for step in range(5):
        twists = torch.randn(1 + step % 2, 6, generator=generator) * torch.tensor([0.8, 0.3, 1.5, 0.1, 0.5, 0.1])
        camera = cameras(*twists.tolist())
        written = frame(camera, step)
        written["depth"] *= 1 + 0.1 * torch.rand(written["depth"].shape, generator=generator)
        written["depth"][torch.rand(written["depth"].shape, generator=generator) < 0.1] = 0.0
        written["depth"][:, :4, 2] = torch.inf
        written["depth"][:, 4:8, 2] = torch.nan
        written["static"] = torch.rand(written["static"].shape, generator=generator) < 0.98
        seen = memory.read(map, camera)
        for t in range(len(camera)):
            expected = reference.read(camera[t], C)
            for name, tensor in fields(seen).items():
                axis = 1 if name in ("latents", "offset") else 0
                assert torch.equal(tensor.narrow(axis, t, 1), expected[name]), (name, step)
        map = memory.write(map, **written)
        for t in range(len(camera)):
            reference.write(written["latents"][:, t], written["depth"][t], written["static"][t], camera[t])
        order = map.ids().argsort()
        xyz, features, ids, footprint = zip(*reference.points, strict=True)
        assert map.ids()[order].tolist() == list(ids)
        assert torch.equal(map.xyz()[order], torch.tensor([p.tolist() for p in xyz]))
        assert torch.equal(map.features()[order], torch.tensor([f.tolist() for f in features]))
        assert torch.equal(map.footprint()[order], torch.tensor([float(f) for f in footprint]))
    assert map.points > 100


def test_read_returns_written_latents() -> None:
    memory, camera = PointMemory(C, STRIDE), cameras([0.3, 0, 0.2, 0, 0.4, 0])
    written = frame(camera)
    view = memory.read(memory.write(memory.empty(), **written), camera)
    assert bool(view.visible.all())
    assert torch.equal(view.latents, written["latents"])
    assert torch.equal(view.source.flatten(), GENERATED + torch.arange(48))
    assert float(view.offset.abs().max()) < 1e-4 and float(view.log_scale.abs().max()) < 1e-4


def test_empty_map_shows_holes() -> None:
    camera = cameras([0.0] * 6, [0.1] * 6)
    for memory in (PointMemory(C, STRIDE), EmptyMemory(C, STRIDE)):
        view = memory.read(memory.empty(), camera)
        assert view.latents.shape == (C, 2, 6, 8) and view.offset.shape == (2, 2, 6, 8)
        assert not bool(view.visible.any()) and bool((view.source == -1).all())
        assert memory.empty().points == 0
    assert memory.write(memory.empty(), **frame(camera)).points == 0


def test_ids_are_frame_times_cells_plus_cell() -> None:
    memory, camera = PointMemory(C, STRIDE), cameras([0.0] * 6)
    map = memory.write(memory.empty(), **frame(camera))
    map = memory.write(map, **frame(camera, 1))  # lacks nothing, still counts
    behind = cameras([0, 0, 0, 0, torch.pi, 0])
    map = memory.write(map, **frame(behind, 2))
    assert sorted(map.ids().tolist()) == [GENERATED + cell for cell in (*range(48), *range(96, 144))]


def test_standing_still_writes_nothing() -> None:
    memory, camera = PointMemory(C, STRIDE), cameras([0.1, 0, 0.2, 0, 0.5, 0])
    first = memory.write(memory.empty(), **frame(camera))
    map, depth = first, scene(camera)
    generator = torch.Generator().manual_seed(0)
    for _ in range(1000):
        jitter = 1 + 0.3 * (torch.rand(depth.shape, generator=generator) * 2 - 1)
        map = memory.write(map, **frame(camera, 1, depth * jitter))
    assert map.blocks is first.blocks


def test_approach_rewrites_each_cell_once() -> None:
    memory = PointMemory(C, STRIDE)
    far, near = cameras([0.0] * 6), cameras([0, 0, 1.5, 0, 0, 0])
    wall = torch.full((1, *SIZE), 2.0)
    map = memory.write(memory.empty(), **frame(far, 0, wall))
    before = map.points
    assert float(memory.read(map, near).log_scale.min()) < -1.9
    generator = torch.Generator().manual_seed(0)
    sizes = []
    for step in range(60):
        depth = 0.5 * (1 + 0.15 * (torch.rand(1, *SIZE, generator=generator) * 2 - 1))
        map = memory.write(map, **frame(near, step, depth))
        sizes.append(map.points)
    assert before < sizes[0] and sizes[-1] == sizes[20] <= before + 48
    view = memory.read(map, near)
    assert bool((view.source >= 48).all()) and float(view.log_scale.min()) > -0.5
    assert bool((memory.read(map, far).source < GENERATED + 48).all()), "from afar the first, older points still win"


def test_unknown_and_moving_cells_are_not_written() -> None:
    memory, camera = PointMemory(C, STRIDE), cameras([0.0] * 6)
    written = frame(camera)
    written["depth"][0, :4, :12] = torch.tensor([0.0, torch.nan, torch.inf]).repeat_interleave(4)
    written["static"][0, 5, 1] = False
    view = memory.read(memory.write(memory.empty(), **written), camera)
    hidden = (~view.visible[0]).nonzero().tolist()
    assert hidden == [[0, 0], [0, 1], [0, 2], [1, 0]]


def test_frames_of_a_chunk_are_written_in_order() -> None:
    memory = PointMemory(C, STRIDE)
    camera = cameras(*[[0.05 * i, 0, 0.1 * i, 0, 0.1 * i, 0] for i in range(4)])
    written = frame(camera)
    together = memory.write(memory.empty(), **written)
    one_by_one = memory.empty()
    for t in range(4):
        part = {name: written[name][:, t : t + 1] for name in ("latents", "frames")}
        part |= {name: written[name][t : t + 1] for name in ("depth", "static")}
        one_by_one = memory.write(one_by_one, **part, camera=camera[t : t + 1])
    assert 48 < together.points < 4 * 48
    assert torch.equal(together.ids(), one_by_one.ids()) and torch.equal(together.xyz(), one_by_one.xyz())


def test_write_does_not_change_the_old_map() -> None:
    memory, camera = PointMemory(C, STRIDE), cameras([0.0] * 6)
    base = memory.write(memory.empty(), **frame(camera))
    kept = {name: tensor.clone() for name, tensor in base.tensors().items()}
    beside = [cameras([0, 0, 0.1, 0, turn, 0]) for turn in (0.3, -0.3)]
    left, right = (memory.write(base, **frame(one, 5)) for one in beside)
    assert all(torch.equal(tensor, kept[name]) for name, tensor in base.tensors().items())
    assert memory.empty().points == 0 and left.points > base.points < right.points
    again = memory.write(base, **frame(beside[0], 5))
    assert_same(memory.read(again, beside[0]), memory.read(left, beside[0]))
    assert not torch.equal(memory.read(left, beside[0]).visible, memory.read(right, beside[0]).visible)


def test_culled_read_equals_full_read() -> None:
    memory = PointMemory(C, STRIDE, block_size=0.5)
    map = memory.empty()
    for i, camera in enumerate(walk(12)):
        map = memory.write(map, **frame(camera, i))
    left_out = 0
    full = LatentMapWithoutCulling(**{name: getattr(map, name) for name in map.__dataclass_fields__})
    for camera in walk(30, 1.3):
        left_out += len(map.blocks) - len(map.cull(camera.resize((6, 8))[0]).rows)
        assert_same(memory.read(map, camera), memory.read(full, camera))
    assert left_out > 15 * len(map.blocks), "culling should leave out more than half"


class LatentMapWithoutCulling(LatentMap):
    def cull(self, camera: Camera) -> InView:
        return InView.all(len(self.blocks), camera.size)


def test_walking_in_a_circle_bounds_growth() -> None:
    memory = PointMemory(C, STRIDE)
    map, sizes = memory.empty(), []
    for _ in range(4):
        for i, camera in enumerate(walk(40)):
            map = memory.write(map, **frame(camera, i))
        sizes.append(map.points)
    first, second, _, fourth = sizes
    assert second - first < 0.1 * first
    assert fourth == second, "what was seen from every place of the circle is remembered"


def test_max_points_removes_least_recently_seen_blocks() -> None:
    memory = PointMemory(C, STRIDE, max_points=300, block_size=0.5)
    map = memory.empty()
    for i, camera in enumerate(walk(40)):
        map = memory.write(map, **frame(camera, i))
        assert map.points <= 300
        assert bool(memory.read(map, camera).visible.all()), "the current view is never evicted"
    unbounded = PointMemory(C, STRIDE, block_size=0.5)
    everything = unbounded.empty()
    for i, camera in enumerate(walk(40)):
        everything = unbounded.write(everything, **frame(camera, i))
    assert everything.points > 400
    opposite = walk(40)[20]
    assert (
        memory.read(map, opposite).visible.float().mean() < unbounded.read(everything, opposite).visible.float().mean()
    )
    again = memory.empty()
    for i, camera in enumerate(walk(40)):
        again = memory.write(again, **frame(camera, i))
    assert torch.equal(again.ids(), map.ids())


def test_resampled_depth_is_exact_on_planes() -> None:
    v, u = torch.meshgrid(torch.arange(48) + 0.5, torch.arange(64) + 0.5, indexing="ij")
    fine = 1 / (0.2 + 0.002 * u - 0.003 * v)
    coarse = 1 / (0.2 + 0.002 * 4 * u[:12, :16] - 0.003 * 4 * v[:12, :16])
    torch.testing.assert_close(resample_depth(fine, (12, 16)), coarse)
    torch.testing.assert_close(resample_depth(fine[:, :48], (16, 16)), fine[1::3, 1:48:3], msg="centres are samples")


def test_resampled_depth_does_not_mix_surfaces_or_unknown() -> None:
    depth = torch.full((2, 12, 8), 2.0)
    depth[1, :, 6:] = 5.0  # the centre of a cell in the right column lies on the edge
    assert torch.equal(resample_depth(depth, (3, 2))[1], torch.tensor([[2.0, 5.0]] * 3))
    depth[0, 5, 2], depth[0, 6, 2] = torch.nan, 0.0
    assert torch.equal(resample_depth(depth, (3, 2))[0], torch.tensor([[2.0, 2.0], [0.0, 2.0], [2.0, 2.0]]))
    depth = torch.rand(2, 12, 8)
    assert torch.equal(resample_depth(depth, (12, 8)), depth)
    assert resample_depth(depth[..., :9, :6], (3, 2))[0, 0, 0] == depth[0, 1, 1], "the middle of 3 x 3"
    with pytest.raises(ValueError, match="size: expected a grid that divides 12 x 8, got 5 x 2"):
        resample_depth(depth, (5, 2))


def test_static_cell_needs_all_its_known_pixels() -> None:
    static = torch.ones(4, 8, dtype=torch.bool)
    static[0, 0] = static[3, 7] = False
    depth = torch.ones(4, 8)
    depth[3, 7] = 0.0
    assert resample_static(static, depth, (1, 2)).tolist() == [[False, True]]


def test_written_points_lie_on_the_scene() -> None:
    memory, camera = PointMemory(C, STRIDE), cameras([0.2, 0.1, 0.3, 0.1, 0.7, 0])
    written = frame(camera)
    map = memory.write(memory.empty(), **written)
    grid = camera.resize((6, 8))
    expected = unproject(resample_depth(written["depth"], grid.size), grid)[0].flatten(0, 1)
    assert torch.equal(map.xyz()[map.ids().argsort()], expected)


@pytest.mark.parametrize(
    ("argument", "value"),
    [("stride", (4, 4)), ("stride", (1, 0, 4)), ("tolerance", -0.1), ("tolerance", float("nan")), ("refine", 0.5)]
    + [("samples_per_cell", 0), ("samples_per_cell", 3), ("max_points", 0), ("block_size", 0.0), ("channels", 0)],
)
def test_bad_settings(argument: str, value: object) -> None:
    settings: dict = {"channels": C, "stride": STRIDE} | {argument: value}
    with pytest.raises(ValueError, match=f"^{argument}: expected"):
        PointMemory(**settings)


def test_bad_input() -> None:
    memory, camera = PointMemory(C, STRIDE), cameras([0.0] * 6)
    for name in ("latents", "depth", "static"):
        written = frame(camera)
        written[name] = written[name][..., 1:]
        with pytest.raises(ValueError, match=f"^{name}: expected shape"):
            memory.write(memory.empty(), **written)
    with pytest.raises(ValueError, match="^camera: expected batch shape"):
        memory.read(memory.empty(), camera[0])
    with pytest.raises(ValueError, match="^camera: expected a size"):
        memory.read(memory.empty(), camera.resize((23, 32)))
