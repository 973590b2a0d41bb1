import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.toy_world import toy_model, toy_starts

from mirage_sim.geometry import Camera, VelocityLimits
from mirage_sim.world import NotReset, Observation, World, step_together

COMMANDS = [(1.0, 0.2), (0.5, -1.0), (0.0, -1.0), (-1.0, 0.4), (0.8, 1.0)]


def walk(world: World, commands=COMMANDS) -> list[Observation]:
    observations = []
    for command in commands:
        camera = world.camera
        c2w = camera.c2w @ VelocityLimits().motion(torch.tensor(command))
        observations.append(world.step(Camera(c2w, camera.K, camera.size)))
    return observations


def same(first: list[Observation], second: list[Observation]) -> bool:
    return len(first) == len(second) and all(
        np.array_equal(a.frame, b.frame)
        and np.array_equal(a.depth, b.depth)
        and np.array_equal(a.remembered, b.remembered)
        and torch.equal(a.camera.c2w, b.camera.c2w)
        and a.info["points"] == b.info["points"]
        for a, b in zip(first, second, strict=True)
    )


def test_observation_has_documented_content(world, starts):
    first = world.reset(start=1, seed=4)
    assert np.array_equal(first.frame, starts[1])
    assert first.remembered.all()
    assert torch.equal(first.camera.c2w, torch.eye(4))
    last = walk(world)[-1]
    assert last.frame.dtype == np.uint8
    assert last.depth.dtype == np.float32
    assert last.remembered.dtype == bool
    assert last.frame.shape == (48, 64, 3)
    assert last.depth.shape == last.remembered.shape == (48, 64)
    assert 0 < last.info["remembered"] == last.remembered.mean() < 1
    assert last.info["points"] == world.state.map.points
    assert last.info["nbytes"] == world.state.map.nbytes
    assert min(last.info["seconds"].values()) >= 0
    assert world.state.step == len(COMMANDS)


def test_remembered_is_the_view_on_the_pixel_grid(model, world):
    world.reset()
    before = world.state
    (observation,) = walk(world, COMMANDS[:1])
    camera = observation.camera
    view = model.memory.read(before.map, Camera(camera.c2w[None], camera.K[None], camera.size))
    cells = view.resize(before.preceding.shape[-2:]).visible[0].numpy()
    assert cells.any() and not cells.all()
    assert np.array_equal(observation.remembered[1::4, 2::4], cells)
    assert np.array_equal(observation.remembered[::4, ::4], observation.remembered[3::4, 3::4])


def test_seed_determines_frames(model, starts):
    one, other = World(model, starts), World(model, starts)
    one.reset(seed=5)
    other.reset(seed=5)
    first = walk(one)
    assert same(first, walk(other))
    other.reset(seed=6)
    assert not same(first, walk(other))


def test_restore_replays_bit_for_bit(world):
    world.reset(seed=5)
    walk(world)
    snapshot = world.snapshot()
    first = walk(world)
    world.reset(start=2)
    assert world.restore(snapshot) is snapshot.observation
    assert same(first, walk(world))


def test_forks_are_independent(world):
    world.reset()
    walk(world)
    left, right = world.fork(2)
    walk(left, COMMANDS[::-1])
    right_walk = walk(right)
    assert same(walk(world), right_walk)
    assert not same(walk(world.fork(1)[0]), right_walk)


def test_saved_world_continues_bit_for_bit(world, model, tmp_path):
    world.reset(seed=2**62)
    last = walk(world)[-1]
    path = tmp_path / "moment.safetensors"
    world.save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["moment.safetensors"]
    other = World(model)
    shown = other.load(path)
    assert same([shown], [last])
    assert shown.info == last.info
    expected = walk(world)
    assert same(expected, walk(other))
    assert torch.equal(world.state.map.ids(), other.state.map.ids())


def test_saved_world_continues_in_a_new_process(world, tmp_path):
    world.reset(seed=9)
    walk(world)
    world.save(tmp_path / "moment.safetensors")
    program = (
        "import sys, numpy as np\n"
        f"sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parent.parent)!r}]\n"
        "from test_session import walk, World, toy_model\n"
        "world = World(toy_model())\n"
        "world.load(sys.argv[1])\n"
        "np.save(sys.argv[2], np.stack([observation.frame for observation in walk(world)]))\n"
    )
    arguments = [str(tmp_path / "moment.safetensors"), str(tmp_path / "frames.npy")]
    subprocess.run([sys.executable, "-c", program, *arguments], check=True)
    assert np.array_equal(np.load(tmp_path / "frames.npy"), np.stack([o.frame for o in walk(world)]))


@pytest.mark.parametrize(
    "damage", ["truncated", "foreign", "other", "text", "no map", "no keyframe", "broken pose", "wrong seed"]
)
def test_load_rejects_damaged_files_and_keeps_the_world(world, model, tmp_path, damage):
    world.reset(seed=1)
    walk(world)
    path = tmp_path / "moment.safetensors"
    world.save(path)
    whole = path.read_bytes().replace(b'"sha256"', b'"sha25x"')  # else the digest would find it out before
    if damage == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "foreign":
        save_file({"weight": torch.zeros(3)}, path)
    elif damage == "other":
        other = World(toy_model(channels=16), toy_starts())
        other.reset()
        other.save(path)
    elif damage == "text":
        path.write_text("not a world")
    elif damage == "no map":
        path.write_bytes(whole.replace(b'"map.xyz"', b'"map.abc"'))
    elif damage == "no keyframe":
        path.write_bytes(whole.replace(b'"given.depth"', b'"given.abcde"'))
    elif damage == "broken pose":
        pose = world.camera.c2w.numpy().tobytes()
        path.write_bytes(whole.replace(pose, np.full(16, 0.5, np.float32).tobytes()))
    elif damage == "wrong seed":
        assert rb"\"seed\": 1" in whole
        path.write_bytes(whole.replace(rb"\"seed\": 1", rb"\"seed\":-1"))
    before = world.snapshot()
    with pytest.raises(ValueError, match="expected"):
        world.load(path)
    assert world.snapshot() is before


def test_load_detects_flipped_bits(world, tmp_path):
    world.reset(seed=1)
    walk(world)
    path = tmp_path / "moment.safetensors"
    world.save(path)
    whole, before = path.read_bytes(), world.snapshot()
    head = 8 + int.from_bytes(whole[:8], "little")
    for place in (head, (head + len(whole)) // 2, len(whole) - 1, whole.index(rb"\"seed\": 1") + 10):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(ValueError, match=f"^{path}: expected the bytes that were written, .*damaged"):
            world.load(path)
        assert world.snapshot() is before


def test_load_accepts_files_without_digest(world, model, tmp_path):
    world.reset(seed=1)
    walk(world)
    path = tmp_path / "moment.safetensors"
    world.save(path)
    path.write_bytes(path.read_bytes().replace(b'"sha256"', b'"sha25x"'))
    other = World(model)
    other.load(path)
    assert np.array_equal(other.step(other.camera).frames, world.step(world.camera).frames)


def test_load_rejects_missing_files(world, tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a saved world"):
        world.load(tmp_path / "missing.safetensors")


def test_failed_save_keeps_the_old_file(world, tmp_path, monkeypatch):
    world.reset()
    path = tmp_path / "moment.safetensors"
    world.save(path)
    before = path.read_bytes()
    walk(world)
    monkeypatch.setattr(json, "dumps", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        world.save(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["moment.safetensors"]


@pytest.mark.parametrize(
    "call",
    [
        lambda w: w.step(Camera.from_fov(torch.eye(4), 60.0, (48, 64))),
        lambda w: w.snapshot(),
        lambda w: w.fork(2),
        lambda w: w.save("nowhere"),
        lambda w: w.state,
        lambda w: w.camera,
    ],
)
def test_calls_before_reset_are_rejected(world, call):
    with pytest.raises(NotReset, match=r"expected reset\(\)"):
        call(world)


def bad_cameras() -> dict[str, object]:
    good = Camera.from_fov(torch.eye(4), 60.0, (48, 64))
    nan, sheared, mirrored = torch.eye(4), torch.eye(4), torch.eye(4)
    nan[0, 3], sheared[0, 1], mirrored[0, 0] = torch.nan, 0.1, -1.0
    return {
        "nan": Camera(nan, good.K, good.size),
        "sheared": Camera(sheared, good.K, good.size),
        "mirrored": Camera(mirrored, good.K, good.size),
        "double": Camera(torch.eye(4, dtype=torch.float64), good.K, good.size),
        "shape": Camera(torch.eye(3), good.K, good.size),
        "batch": Camera(good.c2w[None], good.K[None], good.size),
        "size": good.resize((96, 128)),
        "focal": Camera(good.c2w, -good.K, good.size),
        "matrix": np.eye(4),
        "nothing": None,
    }


@pytest.mark.parametrize("name", bad_cameras())
def test_invalid_cameras_are_rejected_and_keep_the_world(world, name):
    world.reset()
    before = world.snapshot()
    for call in (world.step, lambda camera: world.reset(start=1, camera=camera)):
        if name == "nothing" and call != world.step:
            continue
        with pytest.raises(ValueError, match="expected .* got|expected finite"):
            call(bad_cameras()[name])
        assert world.snapshot() is before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "seed: expected"),
        ({"seed": 2**63}, "seed: expected"),
        ({"seed": 1.0}, "seed: expected"),
        ({"image": None}, "image: expected a path .*, got None"),
        ({"seed": True}, "seed: expected"),
        ({"start": 3}, r"start: expected an index in \[0, 3\), got 3"),
        ({"start": True}, "start: expected"),
        ({"fov_deg": 0}, "fov_deg: expected"),
        ({"fov_deg": None}, "fov_deg: expected a number"),
        ({"start": 0, "image": np.zeros((48, 64, 3), np.uint8)}, "image, start: expected at most one"),
        ({"image": np.zeros((48, 64), np.uint8)}, "image: expected"),
    ],
)
def test_invalid_resets_are_rejected_and_keep_the_world(world, arguments, message):
    world.reset(start=1)
    before = world.snapshot()
    with pytest.raises(ValueError, match=message):
        world.reset(**arguments)
    assert world.snapshot() is before


@pytest.mark.parametrize("snapshot", [None, "moment", 3])
def test_restore_rejects_other_types(world, snapshot):
    with pytest.raises(ValueError, match="snapshot: expected a Snapshot"):
        world.restore(snapshot)


def test_restore_and_load_reject_other_models(world, model, starts, tmp_path):
    world.reset()
    world.save(tmp_path / "here.safetensors")
    compact = World(replace(model, memory=model.memory.compacted()), starts)
    message = r"state: expected a map \('LatentMap', 8, 'compact'\) of this model, got \('LatentMap', 8, 'full'\)"
    with pytest.raises(ValueError, match=f"^snapshot: {message}"):
        compact.restore(world.snapshot())
    with pytest.raises(ValueError, match=f"here.safetensors: {message}"):
        compact.load(tmp_path / "here.safetensors")
    with pytest.raises(ValueError, match=r"here.safetensors: state: expected a keyframe \('absent',\)"):
        World(replace(model, reprojection=None)).load(tmp_path / "here.safetensors")
    other = World(toy_model(channels=4), starts)
    with pytest.raises(
        ValueError, match=r"^snapshot: state: expected latents \(4, 12, 16\) of this model, got \(8, 12, 16\)"
    ):
        other.restore(world.snapshot())


@pytest.mark.parametrize("starts", [np.zeros((0, 48, 64, 3), np.uint8), np.zeros((2, 48, 64, 3)), [1], "frames"])
def test_invalid_start_images_are_rejected(model, starts):
    with pytest.raises(ValueError, match="starts: expected a uint8 array"):
        World(model, starts)


def test_reset_camera_determines_the_world_frame(world, starts):
    c2w = VelocityLimits().motion(torch.tensor([1.0, 1.0])) @ VelocityLimits().motion(torch.tensor([-1.0, 1.0]))
    camera = Camera.from_fov(c2w, 70.0, (48, 64))
    observation = world.reset(start=0, camera=camera)
    assert torch.equal(observation.camera.c2w, c2w)
    centre = world.state.map.xyz().mean(0) - c2w[:3, 3]
    assert torch.nn.functional.cosine_similarity(centre, c2w[:3, 2], dim=0) > 0.95  # points lie ahead of it


def test_reset_crops_images_of_another_shape(world):
    image = np.random.default_rng(0).integers(0, 256, (200, 500, 3), dtype=np.uint8)
    observation = world.reset(image, fov_deg=40.0)
    assert observation.frame.shape == (48, 64, 3)
    focal = 24 / np.tan(np.radians(20))  # the height was kept, the sides cut
    assert observation.camera.K[1, 1].item() == pytest.approx(focal, rel=1e-5)
    assert observation.camera.K[0, 0].item() == pytest.approx(focal, rel=1e-2)
    walk(world)


def test_step_together_steps_all_worlds_or_none(model, starts):
    worlds = [World(model, starts) for _ in range(3)]
    for seed, world in enumerate(worlds):
        world.reset(start=seed, seed=seed)
    ahead = Camera(VelocityLimits().motion(torch.tensor([1.0, 0.0])), worlds[0].camera.K, (48, 64))
    alone = [world.fork(1)[0].step(ahead) for world in worlds]
    before = [world.snapshot() for world in worlds]
    far = Camera(torch.full((4, 4), torch.nan), ahead.K, ahead.size)
    for wrong, named in (
        ([ahead, ahead, far], "c2w"),
        ([ahead] * 2, "worlds, cameras: expected one or more and equal"),
    ):
        with pytest.raises(ValueError, match=named):
            step_together(worlds, wrong)
    with pytest.raises(ValueError, match="worlds: expected 2 of one model"):
        step_together([worlds[0], World(toy_model(), starts)], [ahead] * 2)
    assert [world.snapshot() for world in worlds] == before
    for world, together, single in zip(worlds, step_together(worlds, [ahead] * 3), alone, strict=True):
        assert np.abs(together.frame.astype(int) - single.frame).max() <= 1  # a batch may round otherwise
        np.testing.assert_array_equal(together.remembered, single.remembered)
        assert world.state.step == 1 and world.camera.c2w.equal(ahead.c2w)
