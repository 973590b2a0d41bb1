import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.plan_scenes import PILLAR, pillar_view, pillar_world

from mirage_sim.agents.plan_view import PlanView, plan_pose
from mirage_sim.geometry import VelocityLimits
from mirage_sim.world import Body, WorldModel


@pytest.fixture(scope="module")
def view(model: WorldModel) -> PlanView:
    return pillar_view(model)


@pytest.fixture(scope="module")
def empty(view: PlanView) -> PlanView:
    return replace(view, clearance=np.full_like(view.clearance, 12.0))


def commands(*steps: tuple[float, float]) -> np.ndarray:
    return np.array([steps], np.float32)


def test_paths_are_those_of_the_unicycle(empty: PlanView) -> None:
    twists = np.random.default_rng(0).uniform(-1, 1, (5, 20, 2)).astype(np.float32)
    paths = empty.follow(twists)
    for twist, xy, heading in zip(twists, paths.xy, paths.heading, strict=True):
        c2w = empty.camera.c2w.double()
        for motion, at, angle in zip(VelocityLimits().motion(torch.from_numpy(twist)), xy, heading, strict=True):
            c2w = c2w @ motion.double()
            x, y, turned = plan_pose(c2w.numpy())
            assert at == pytest.approx([x, y], abs=1e-5)
            assert math.remainder(angle - turned, 2 * math.pi) == pytest.approx(0, abs=1e-5)
        assert torch.allclose(empty.camera_at(xy[-1], heading[-1]).c2w, c2w.float(), atol=1e-5)


def test_a_full_circle_to_the_left_closes(empty: PlanView) -> None:
    paths = empty.follow(commands(*[(1.0, 1.0)] * 60))
    assert paths.xy[0, -1] == pytest.approx([0, 0], abs=1e-9)
    assert paths.xy[0, :, 1].max() == pytest.approx(2 * 1.5 / (math.pi / 3), abs=0.01)  # diameter, on the left


def test_the_pillar_stops_a_straight_path_where_the_body_stops(model: WorldModel, view: PlanView) -> None:
    paths = view.follow(commands(*[(1.0, 0.0)] * 20))
    contact, _ = Body().around(pillar_world(model).state.map, view.camera).contact(np.array([0, 5], np.float32))
    assert contact == pytest.approx(PILLAR[0] - 0.4, abs=0.1)
    assert contact - 0.15 - 0.1 <= paths.xy[0, -1, 0] <= contact
    assert paths.blocked[0, -1] and not paths.blocked[0, 0]
    assert paths.clearance.min() >= 0


def test_a_body_that_touches_an_obstacle_can_leave_it(view: PlanView) -> None:
    stuck = replace(view, pose=(PILLAR[0] - 0.2, 0.0, 0.0))
    assert stuck.follow(commands((1.0, 0.0))).blocked.all()
    assert not stuck.follow(commands((-1.0, 0.0))).blocked.any()


def test_space_behind_the_pillar_and_the_camera_is_unseen(view: PlanView) -> None:
    places = np.array([[1.0, 0.0], [4.0, 0.0], [4.0, 2.2], [-1.0, 0.0]])  # before, behind, beside, behind the camera
    assert view.seen[view.cells(places)].tolist() == [True, False, True, False]


def test_the_way_leads_around_the_pillar(view: PlanView) -> None:
    here = view.follow(commands((0.0, 0.0))).way_to((3.0, 0.0))[0, 0]
    around = 2 * math.hypot(1.5, PILLAR[1] + 0.4)
    assert around * 0.95 < here < around * 1.6  # a part is unseen and counts more
    assert view.follow(commands((0.0, 0.0))).way_to((1.0, 0.0))[0, 0] == pytest.approx(1.0, abs=0.08)


def test_ways_to_goals_outside_the_grid_are_straight(empty: PlanView) -> None:
    seen = replace(empty, seen=np.ones_like(empty.seen))
    assert seen.follow(commands((0.0, 0.0))).way_to((30.0, 0.0))[0, 0] == pytest.approx(30.0, abs=0.2)


def test_new_area_is_what_a_turn_brings_into_view(view: PlanView) -> None:
    turned = view.follow(np.stack([np.zeros((15, 2)), np.tile([0.0, 1.0], (15, 1))]))
    ahead, left = turned.new_area()
    fan = 2 * math.atan(view.camera.size[1] / 2 / float(view.camera.K[0, 0])) / 2 * 3.0**2
    assert left == pytest.approx(fan, rel=0.1) and ahead < left / 3


def test_view_of_something_without_a_world_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"^world: expected a World or an environment that has one, got int$"):
        PlanView.of(3)
