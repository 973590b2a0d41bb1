"""The simulation behind the node, without ROS."""

import math
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch

from mirage_sim.geometry import Camera, VelocityLimits, se3_exp
from mirage_sim.memory import LatentMap
from mirage_sim.memory.blocks import GENERATED, Points
from mirage_sim.ros.memory_views import PointColours, ranges
from mirage_sim.ros.parameters import WorldParameters
from mirage_sim.ros.simulation import Simulation


@pytest.fixture(scope="module")
def shared():
    simulation = Simulation(WorldParameters(seed=5, scan_rays=90))
    yield simulation
    simulation.close()


@pytest.fixture
def simulation(shared):
    shared.parameters = WorldParameters(seed=5, scan_rays=90)
    shared.reset(rewind=True)
    return shared


def drive(simulation, *commands):
    frames = []
    for command in commands:
        simulation.command(*command)
        frames.append(simulation.step())
    return frames


def test_simulation_equals_environment(simulation):
    env = gymnasium.make("MirageWorld-v0", observation="dict", scan=90)
    observation, _ = env.reset(seed=5)
    np.testing.assert_array_equal(simulation.frame.image, observation["rgb"])
    for command in [(1.5, 0.0), (0.4, -1.0), (-0.2, 0.3)]:
        (frame,) = drive(simulation, command)
        observation, _, _, _, info = env.step(np.array([command[0] / 1.5, command[1] / (math.pi / 3)], np.float32))
        for value, expected in [
            (frame.image, observation["rgb"]),
            (frame.depth, observation["depth"]),
            (frame.remembered, observation["remembered"]),
            (frame.camera.c2w, observation["pose"]),
            (frame.scan, info["scan"]),
        ]:
            np.testing.assert_array_equal(value, expected)
        assert frame.collision == info["collision"]
    env.close()


@pytest.mark.parametrize(
    ("rate", "command", "fraction"),
    [
        (10.0, (1.5, 0.0), (1.0, 0.0)),
        (10.0, (-0.75, math.pi / 3), (-0.5, 1.0)),
        (10.0, (99.0, -99.0), (1.0, -1.0)),
        (20.0, (1.5, 0.0), (0.5, 0.0)),  # half the time, half the way
        (20.0, (99.0, 0.0), (0.5, 0.0)),
        (5.0, (0.6, 0.0), (0.8, 0.0)),
        (5.0, (1.5, 0.0), (1.0, 0.0)),  # clipped to one step
    ],
)
def test_velocities_become_actions(simulation, rate, command, fraction):
    simulation.parameters = replace(simulation.parameters, frame_rate=rate)
    simulation.command(*command)
    np.testing.assert_allclose(simulation.action(), fraction, rtol=1e-6)


def test_frame_rate_changes_clock_and_motion(simulation):
    simulation.parameters = replace(simulation.parameters, frame_rate=25.0)
    frames = drive(simulation, (1.0, 0.5), (1.0, 0.5))
    assert [frame.seconds for frame in frames] == pytest.approx([0.04, 0.08])
    np.testing.assert_allclose(frames[-1].twist, [1.0, 0, 0, 0, 0, 0.5], atol=1e-4)
    assert frames[-1].camera.c2w[:3, 3].norm() == pytest.approx(0.08, abs=1e-4)


@pytest.mark.parametrize(("timeout", "steps"), [(0.3, 3), (0.25, 3), (0.01, 1), (0.0, 100)])
def test_commands_time_out(simulation, timeout, steps):
    simulation.parameters = replace(simulation.parameters, cmd_vel_timeout=timeout)
    simulation.command(1.0, 0.0)
    moved = 0
    while simulation.action()[0] and moved < 5:
        simulation.step()
        moved += 1
    assert moved == min(steps, 5)


@pytest.mark.parametrize("command", [(math.nan, 0.0), (0.0, math.inf)])
def test_command_refuses_non_finite_velocities(simulation, command):
    simulation.command(0.5, 0.1)
    before = simulation.action()
    with pytest.raises(ValueError, match="expected finite velocities"):
        simulation.command(*command)
    np.testing.assert_array_equal(simulation.action(), before)


def test_every_frame_has_later_time(simulation):
    times = [simulation.frame.seconds]
    times.append(drive(simulation, (0.1, 0.0))[0].seconds)
    simulation.snapshot()
    times += [simulation.restore().seconds, simulation.teleport(np.eye(4)).seconds, simulation.reset().seconds]
    assert times == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    before = simulation.frame
    rewound = simulation.rewind_clock()
    assert rewound.seconds == 0.0
    np.testing.assert_array_equal(rewound.image, before.image)


def test_restore_returns_to_snapshot(simulation):
    drive(simulation, (1.0, 0.2))
    simulation.snapshot()
    points = simulation.cloud()
    first = drive(simulation, (0.5, 1.0), (0.5, 1.0))
    assert np.array_equal(simulation.restore().twist, np.zeros(6)) and not simulation.action().any()
    for value, expected in zip(simulation.cloud(), points, strict=True):
        np.testing.assert_array_equal(value, expected)
    again = drive(simulation, (0.5, 1.0), (0.5, 1.0))
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.image, other.image)


def test_restore_refuses_without_snapshot():
    fresh = Simulation(WorldParameters(scan_rays=0))
    with pytest.raises(ValueError, match="snapshot: expected one to restore"):
        fresh.restore()
    assert fresh.frame.scan is None
    fresh.close()


def test_teleport_moves_origin_of_odometry(simulation):
    (moved,) = drive(simulation, (1.0, 0.5))
    target = se3_exp(torch.tensor([0.5, 0.0, -0.3, 0.0, 0.8, 0.0])).numpy()
    frame = simulation.teleport(target)
    np.testing.assert_allclose(frame.camera.c2w, target, atol=1e-6)
    odometry = np.linalg.inv(frame.origin) @ frame.camera.c2w.numpy()
    np.testing.assert_allclose(odometry, moved.camera.c2w, atol=1e-5)
    with pytest.raises(ValueError, match="c2w"):
        simulation.teleport(np.zeros((4, 4)))
    assert simulation.frame is frame


def test_teleport_updates_obstacles(simulation):
    frame = simulation.teleport(se3_exp(torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0, 0.0])).numpy())
    around = simulation._collisions._body.around(frame.map, frame.camera)
    np.testing.assert_array_equal(frame.scan, around.scan(90))


def test_reset_uses_start_image(simulation, tmp_path):
    from PIL import Image

    image = np.zeros((96, 128, 3), np.uint8)
    image[:, :64] = (200, 30, 30)
    Image.fromarray(image).save(tmp_path / "start.png")
    simulation.parameters = replace(simulation.parameters, start_image=str(tmp_path / "start.png"))
    np.testing.assert_array_equal(simulation.reset().image, image)
    before = simulation.frame
    (tmp_path / "start.png").unlink()
    with pytest.raises(FileNotFoundError, match="start.png"):
        simulation.reset()
    assert simulation.frame is before


def test_reset_starts_in_a_saved_world(simulation, tmp_path):
    drive(simulation, (0.8, 0.9))
    before, path = simulation.frame, tmp_path / "mein labor.world"
    colours = simulation.cloud()[1]
    simulation._unwrapped.world.save(path)
    simulation.parameters = replace(simulation.parameters, start=str(path))
    frame = simulation.reset()
    np.testing.assert_array_equal(frame.image, before.image)
    np.testing.assert_array_equal(frame.camera.c2w, before.camera.c2w)
    xyz, decoded = simulation.cloud()
    np.testing.assert_array_equal(xyz, before.map.xyz())
    assert np.abs(decoded.astype(int) - colours).mean() < 60  # one latent alone decodes to about its colour
    drive(simulation, (0.8, 0.9))
    ids, seen = simulation.frame.map.ids().numpy(), before.map.ids().numpy()
    after = simulation.cloud()[1]
    assert len(after) > len(decoded)
    np.testing.assert_array_equal(
        after[np.isin(ids, seen)][np.argsort(ids[np.isin(ids, seen)])], decoded[seen.argsort()]
    )
    np.testing.assert_array_equal(simulation.reset().image, before.image)


def test_saved_world_and_image_are_not_combined(tmp_path):
    for name in ("a.png", "b.world"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match="start, start_image: expected at most one of them"):
        WorldParameters(start=str(tmp_path / "b.world"), start_image=str(tmp_path / "a.png"))


@pytest.mark.parametrize("device", ["abacus", "cuda:77"])
def test_unknown_device_is_refused(device):
    with pytest.raises(ValueError, match="device: expected one that torch can use"):
        Simulation(WorldParameters(device=device))


def expected_colours(map, frames):
    """Return the mean colour of each point's cell in the image that it was written from, computed point by point."""
    colours = []
    for point in map.ids().tolist():
        # the start image was observed, and all others were generated
        write, cell = divmod(point - GENERATED + 24 * 32 if point >= GENERATED else point, 24 * 32)
        row, column = divmod(cell, 32)
        colours.append(frames[write].image[4 * row : 4 * row + 4, 4 * column : 4 * column + 4].mean((0, 1)))
    return np.array(colours)


def test_cloud_has_colours_of_written_images(simulation):
    frames = [simulation.frame]
    for command in [(0.8, 0.9), (0.8, 0.9), (0.0, 0.0), (0.8, -0.9), (1.0, 0.0)]:
        frames += drive(simulation, command)
        if len(frames) in (3, 5):  # also between steps
            simulation.cloud()
    assert len(np.unique(frames[-1].map.ids() // (24 * 32))) > 2
    xyz, colours = simulation.cloud()
    np.testing.assert_array_equal(xyz, frames[-1].map.xyz())
    np.testing.assert_allclose(colours, expected_colours(frames[-1].map, frames), atol=0.51)
    np.testing.assert_array_equal(simulation.cloud()[1], colours)


def test_point_colours_of_copy_and_of_evicted_map(simulation):
    colours, first = PointColours(), simulation.frame
    colours.record(first.map, first.image[None])
    (second,) = drive(simulation, (0.8, 0.9))
    duplicate = colours.copy()
    duplicate.record(second.map, second.image[None])
    kept = second.map.evict(700)
    assert 0 < kept.points <= 700
    np.testing.assert_allclose(duplicate.of(kept), expected_colours(kept, [first, second]), atol=0.51)
    assert len(duplicate._ids) == kept.points and not duplicate._images
    np.testing.assert_allclose(colours.of(first.map), expected_colours(first.map, [first]), atol=0.51)


def test_standing_still_keeps_no_images(simulation):
    simulation.cloud()
    drive(simulation, *[(0.0, 0.0)] * 5)
    assert len(simulation._colours._images) <= 1


def test_limits_equal_environment(simulation):
    assert simulation.limits == VelocityLimits()


@pytest.mark.parametrize("turn", [0.0, 0.7, -2.0, math.pi])
def test_ranges_are_inf_only_where_observed_space_is_free(turn):
    """A far point on each of three sides of the start; the camera has turned to the left."""
    xyz = torch.tensor([[0.0, 0.0, 30.0], [-30.0, 0.0, 0.0], [0.0, 0.0, -30.0], [5.0, 1.5, 0.0]])
    footprint = torch.full((4,), 2 * 30 * math.tan(math.radians(5)))  # ten degrees wide
    points = Points(xyz, torch.zeros(4, 1), torch.arange(4), footprint)
    map = LatentMap.empty(1).add(points, torch.zeros(0, dtype=torch.int64), 4)
    camera = Camera.from_fov(se3_exp(torch.tensor([0.0, 0.0, 0.0, 0.0, -turn, 0.0])), 60.0, (96, 128))
    scan = np.full(360, np.inf, np.float32)
    scan[[180, 90]] = 2.0, 3.0
    measured = ranges(scan, map, camera)
    bearing = np.degrees(-math.pi + turn) + np.arange(360)  # of each ray in the map: 0 is ahead, 90 left
    sides = np.array([0.0, 90.0, 180.0])
    off = np.abs((bearing[:, None] - sides + 180) % 360 - 180).min(1)
    assert measured[180] == 2.0 and measured[90] == 3.0
    others = np.delete(np.arange(360), [90, 180])
    assert np.isinf(measured[others][off[others] < 4.5]).all()
    assert np.isnan(measured[others][off[others] > 5.5]).all()


def test_ranges_behind_the_start_are_unknown(simulation):
    frame = simulation.frame
    measured = ranges(frame.scan, frame.map, frame.camera)
    finite = np.isfinite(frame.scan)
    np.testing.assert_array_equal(measured[finite], frame.scan[finite])
    assert finite.any() and np.isnan(measured[:20]).all() and np.isnan(measured[-20:]).all()
