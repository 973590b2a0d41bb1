"""Collision metrics: in a synthetic hall, and in MiniWorld where it is installed."""

import math

import numpy as np
import pytest
import torch

from mirage_sim.data.clips import Clip
from mirage_sim.data.simulators import ReferenceSimulator
from mirage_sim.evaluation.collision import (
    KINDS,
    PARTS,
    Query,
    ask,
    count,
    evaluate,
    from_first,
    learned_maps,
    metrics_of,
    true_maps,
)
from mirage_sim.evaluation.ground_truth import follow, open_simulator
from mirage_sim.geometry import Camera, VelocityLimits
from mirage_sim.world import Body

EYE, WALL = 1.5, 5.0  # metres


def hall_clip(steps: int = 8) -> Clip:
    """Walk towards a wall on an endless floor, with true depth, in an arbitrary world frame."""
    poses = [torch.eye(4)]
    for _ in range(steps):
        poses.append(poses[-1] @ VelocityLimits().motion(torch.tensor([1.0, 0.0])))
    c2w = torch.stack(poses)
    cameras = Camera.from_fov(c2w, 60.0, (48, 64))
    down = (torch.arange(48) + 0.5 - 24) / cameras.K[0, 1, 1]
    floor = torch.where(down > 0, EYE / down, torch.inf)[None, :, None]
    depth = torch.minimum(floor, (WALL - c2w[:, 2, 3])[:, None, None]).expand(-1, 48, 64)
    aside = torch.tensor([[0.0, 0.0, 1.0, 7.0], [0.0, -1.0, 0.0, 1.0], [1.0, 0.0, 0.0, -2.0], [0.0, 0.0, 0.0, 1.0]])
    return Clip(
        frames=torch.zeros(steps + 1, 48, 64, 3, dtype=torch.uint8),
        depth=depth.contiguous(),
        c2w=aside @ c2w,
        K=cameras.K[0],
        commands=torch.tensor([[1.0, 0.0]] * steps),
        blocked=torch.zeros(steps, dtype=torch.bool),
        source={"environment": "OneRoom", "seed": "1"},
    )


def test_true_maps_are_in_the_first_camera_frame():
    clip = from_first(hall_clip())
    assert torch.allclose(clip.c2w[0], torch.eye(4), atol=1e-6)
    maps = true_maps(clip, (1, 4, 4))
    assert len(maps) == len(clip) and maps[0].points < maps[-1].points
    around = Body().around(maps[-1], clip.cameras[-1])
    assert around.clearance == pytest.approx(WALL - 8 * 0.15 - 0.4, abs=0.05)


def test_count_separates_tp_fp_fn_tn_and_unknown():
    clip = from_first(hall_clip())
    maps, here = true_maps(clip, (1, 4, 4)), np.float32([0.0, 3.5])
    wall, aside, back = np.float32([0.0, 1.5]), np.float32([0.4, 0.0]), np.float32([0.0, -3.6])
    queries = [
        Query(8, "drives", here, wall, True, seen=True),
        Query(8, "drives", here, wall, False, seen=True),
        Query(8, "drives", here, aside, True, seen=False),
        Query(8, "steps", here, aside, False, seen=True),
        Query(8, "steps", here, aside, False, seen=True),
        Query(8, "commands", here, back, True, seen=False),
    ]
    counts = count(queries, maps, clip.cameras, Body())
    assert counts.tolist() == [
        [[0, 0, 0, 0, 0], [0, 0, 0, 2, 0], [1, 1, 0, 0, 0]],
        [[0, 0, 0, 0, 1], [0, 0, 0, 0, 0], [0, 0, 1, 0, 0]],
    ]
    assert PARTS == ("seen", "new") and KINDS == ("commands", "steps", "drives")


def test_metrics_are_ratios_of_sums_over_walks():
    one = np.array([[0, 0, 0, 0, 9], [1, 0, 1, 5, 0], [7, 1, 0, 5, 0]])
    two = np.array([[0, 0, 0, 3, 0], [0, 0, 0, 5, 0], [2, 1, 0, 5, 0]])
    nothing = np.zeros_like(two)
    latent = np.array([[one, two], [two, nothing]])  # two walks, in each what was seen and what is new
    metrics = metrics_of({"latent_memory": latent, "true_depth": np.array([[two, nothing], [two, nothing]])})
    assert metrics["walks"] == 2
    assert (metrics["probes"], metrics["blocked"], metrics["unknown"]) == (52, 13, 9)
    assert metrics["precision"] == pytest.approx(12 / 15, abs=1e-4)
    assert metrics["recall"] == pytest.approx(12 / 13, abs=1e-4)
    assert metrics["precision_seen"] == pytest.approx(10 / 12, abs=1e-4)
    assert metrics["recall_seen"] == pytest.approx(10 / 11, abs=1e-4)
    assert (metrics["precision_new"], metrics["recall_new"]) == (pytest.approx(2 / 3, abs=1e-4), 1.0)
    assert metrics["recall_lo"] <= metrics["recall"] <= metrics["recall_hi"] == 1.0
    assert metrics["recall_steps"] == 0.5 and metrics["precision_drives_true_depth"] == pytest.approx(2 / 3, abs=1e-4)
    assert metrics["recall_commands"] is None and metrics["precision_commands_true_depth_lo"] is None


def test_learned_maps_follow_the_true_cameras(model):
    clips = [from_first(hall_clip(3)), from_first(hall_clip(3))]
    maps = learned_maps(model, clips)
    assert [len(own) for own in maps] == [4, 4]
    assert maps[0][0].points == 12 * 16 and maps[0][0].next_id < maps[0][-1].next_id
    near = (maps[0][0].xyz().norm(dim=1) < 100.0).all()
    assert near  # around the first camera, whatever MiniWorld's frame is


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        ({"walk": "quick"}, "cfg: expected keys among"),
        ({"walks": "some"}, "walks: expected one of"),
        ({"batch": 0}, "batch: expected a positive integer"),
        ({"variants": ["none"]}, "variants: expected some of"),
        ({"variants": []}, "variants: expected some of"),
    ],
)
def test_wrong_settings_are_rejected(cfg, message, model):
    with pytest.raises(ValueError, match=f"^{message}"):
        evaluate(cfg, model)


@pytest.fixture(scope="module")
def simulator():
    try:
        made = open_simulator("miniworld", "OneRoom")
    except ImportError as error:
        pytest.skip(str(error))
    yield made
    made.close()


def test_queries_leave_miniworld_unchanged(simulator: ReferenceSimulator):
    simulator.reset(800_000)
    assert simulator.radius == pytest.approx(0.4)
    before = simulator.camera().c2w
    here, ahead = before[[0, 2], 3].double().numpy(), before[[0, 2], 2].double().numpy()
    free = simulator.free_steps(here, ahead, 1000)
    assert 0 <= free < 1000
    assert torch.equal(simulator.camera().c2w, before)
    blocked = 0
    while not simulator.step(np.array([1.0, 0.0])):
        blocked += 1
    assert blocked == free  # the answer equals that of driving there
    assert simulator.free_steps(here + 1000.0 * ahead, ahead, 3) == 3  # there are no obstacles outside
    end = simulator.camera().c2w[[0, 2], 3].double().numpy()
    assert simulator.free_steps(end, ahead, 5) == 0
    assert simulator.free_steps(end + 0.3 * ahead, ahead, 5) is None


def test_true_depth_blocks_the_body_where_miniworld_does(simulator: ReferenceSimulator):
    """With true depth in the memory, geometry alone decides, without any network."""
    commands = [(1.0, 0.0)] * 8 + [(0.3, 1.0)] * 8
    clip = from_first(follow(simulator, "OneRoom", 800_000, commands))
    maps = true_maps(clip, (1, 4, 4))
    queries = ask(simulator, clip, maps)
    assert queries == sorted(queries, key=lambda query: query.kind != "commands")
    assert sum(query.kind == "steps" for query in queries) == sum(query.kind == "drives" for query in queries) > 24
    for query in queries:
        assert math.hypot(*query.way) <= 1.5 + 1e-5
    tp, fp, fn, tn, _ = count(queries, maps, clip.cameras, Body(radius=simulator.radius)).sum((0, 1))
    assert tp >= 3 and tn >= 3
    assert fp + fn <= 0.15 * (tp + fp + fn + tn)
    assert {query.seen for query in queries} == {True, False}
    again = ask(simulator, clip, maps)
    assert [query.blocked for query in again] == [query.blocked for query in queries]
