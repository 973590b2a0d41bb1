"""Image of a plan: the map with candidates, plan and path, and the frames along the path."""

import numpy as np
from PIL import Image, ImageDraw

from mirage_sim.agents.plan_view import REACH, RESOLUTION, Array, PlanView, plan_pose
from mirage_sim.agents.planning import Drive, Plan
from mirage_sim.evaluation.media import contact_sheet

SCALE = 3  # pixels per cell of the map
COLUMNS = 6  # frames
CANDIDATES = 100  # drawn
_BACKGROUND = (24, 24, 28)
_SOLID, _NEAR, _FREE, _UNSEEN = (20, 20, 20), (196, 160, 150), (235, 235, 235), (135, 135, 140)
_PLAN, _PATH, _GOAL, _START = (30, 90, 230), (0, 0, 0), (255, 0, 255), (60, 170, 70)


def plan_picture(view: PlanView, plan: Plan, driven: Drive, radius: float) -> Image.Image:
    """Draw a drive to a goal.

    The first camera looks towards the top. Black is solid, red is nearer to it than the body's radius, dark grey is
    unseen. Candidates of the first decision are orange where they are costly and green where they are not, its plan is
    blue, the path that was driven is black, the goal is magenta.

    Args:
        view: at the start.
        plan: the first one.
        driven: with ``goal`` in its infos.
        radius: of the goal in metres.
    """
    image = Image.fromarray(_ground(view)).resize((len(view.clearance) * SCALE,) * 2, Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(image)
    order = np.argsort(-plan.costs, kind="stable")  # the best are drawn last
    order = order[np.linspace(0, len(order) - 1, min(CANDIDATES, len(order))).astype(int)]
    for rank, xy in enumerate(view.follow(plan.candidates[order]).xy):
        share = rank / max(len(order) - 1, 1)
        _line(draw, view, xy, (round(240 * (1 - share)), round(120 + 60 * share), 40), 1)
    _line(draw, view, view.follow(plan.actions[None]).xy[0], _PLAN, 4)
    path = np.array([plan_pose(c2w)[:2] for c2w in driven.c2w])
    _line(draw, view, path[1:], _PATH, 2)
    _circle(draw, view, np.array(plan_pose(driven.infos[0]["goal"])[:2]), radius, _GOAL)
    _circle(draw, view, path[0], 0.1, _START)
    bottom, metre = image.height - 12, SCALE / RESOLUTION
    draw.line([(12, bottom), (12 + metre, bottom)], fill=_PATH, width=3)
    draw.text((12, bottom - 18), "1 m", fill=_PATH)
    steps = sorted({round(step) for step in np.linspace(0, len(driven.frames) - 1, COLUMNS)})
    sheet = contact_sheet({"generated": [driven.frames[step] for step in steps]}, steps)
    whole = Image.new("RGB", (max(image.width, sheet.width), image.height + sheet.height), _BACKGROUND)
    whole.paste(image, ((whole.width - image.width) // 2, 0))
    whole.paste(sheet, (0, image.height))
    return whole


def _ground(view: PlanView) -> np.ndarray:
    """Return the map, uint8 ``[rows, columns, 3]``, x to the top and y to the left."""
    ground = np.full((*view.clearance.shape, 3), _FREE, np.uint8)
    ground[~view.seen] = _UNSEEN
    ground[view.clearance < view.radius] = _NEAR
    ground[view.clearance == 0] = _SOLID
    return ground.transpose(1, 0, 2)[::-1, ::-1]


def _pixels(view: PlanView, xy: Array) -> Array:
    return (REACH - (np.asarray(xy) - view.centre)[..., ::-1]) / RESOLUTION * SCALE


def _line(draw: ImageDraw.ImageDraw, view: PlanView, xy: Array, colour: tuple[int, int, int], width: int) -> None:
    """Draw a path ``[n, 2]`` that begins at the view's camera."""
    points = _pixels(view, np.concatenate([np.array([view.pose[:2]]), xy]))
    draw.line([tuple(point) for point in points], fill=colour, width=width)


def _circle(draw: ImageDraw.ImageDraw, view: PlanView, xy: Array, radius: float, colour: tuple[int, int, int]) -> None:
    (x, y), r = _pixels(view, xy), radius / RESOLUTION * SCALE
    draw.ellipse([x - r, y - r, x + r, y + r], outline=colour, width=3)
