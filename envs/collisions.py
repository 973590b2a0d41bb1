"""Collisions of the environment: what is made of the memory's answer to a motion."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from mirage_sim.geometry import Camera
from mirage_sim.world import Body, LocalObstacles, World

CollisionMode = Literal["ignore", "report", "block", "slide"]


class ContactState(NamedTuple):
    """What the body feels at one moment. A value, so that a snapshot can keep it.

    Attributes:
        collision: whether something was in the way of the motion that led here.
        clearance: metres to the nearest remembered obstacle from here; infinite where there is none.
        scan: float32 ``[rays]``, metres, infinite where nothing is remembered; None where no scan was asked for.
        around: what is remembered around here, which the next motion is judged by, too; None where nobody asked.
    """

    collision: bool = False
    clearance: float = float("inf")
    scan: np.ndarray | None = None
    around: LocalObstacles | None = None


@dataclass(frozen=True)
class Collisions:
    """How an environment collides.

    Attributes:
        mode: ``"ignore"``, or what :meth:`mirage_sim.world.Surroundings.travel` calls a response.
        body: what collides; the default body if None.
        rays: of the range scan; None for no scan.

    Raises:
        ValueError: if a setting is unknown or out of range, or contradicts another.
    """

    mode: CollisionMode = "report"
    body: Body | None = None
    rays: int | None = None

    def __post_init__(self) -> None:
        if self.mode not in get_args(CollisionMode):
            raise ValueError(f"collisions: expected one of {get_args(CollisionMode)}, got {self.mode!r}")
        if self.body is not None and not isinstance(self.body, Body):
            raise ValueError(f"body: expected a mirage_sim.world.Body, got {type(self.body).__name__}")
        if self.rays is not None and (isinstance(self.rays, bool) or not isinstance(self.rays, int) or self.rays < 1):
            raise ValueError(f"scan: expected None or a positive number of rays, got {self.rays!r}")
        if self.mode == "ignore" and self.body is not None and self.rays is None:
            raise ValueError("body: expected none with collisions='ignore' and no scan, which use none")

    def check_conditions(self, terminate_on: Sequence[Any]) -> None:
        """Whether an episode can end by what this reports.

        Raises:
            ValueError: if an end waits for collisions that are ignored.
        """
        if self.mode == "ignore" and "collision" in terminate_on:
            raise ValueError("terminate_on: expected no 'collision' with collisions='ignore', which reports none")

    def move(self, contact: ContactState, goal: Camera) -> tuple[Camera, bool]:
        """Where the camera gets to on its way from where the body feels this to a goal; was something in that way?"""
        if self.mode == "ignore" or contact.around is None:
            return goal, False
        travel = contact.around.travel(goal, self.mode)
        return travel.camera, travel.collision

    def query(self, world: World, collision: bool = False) -> ContactState:
        """What the body feels where the world's camera now is."""
        if self.mode == "ignore" and self.rays is None:
            return ContactState()
        around = self._body.around(world.state.map, world.camera)
        scan = None if self.rays is None else around.scan(self.rays)
        return ContactState(collision, around.clearance, scan, around)

    def info(self, contact: ContactState) -> dict[str, Any]:
        """The entries of ``info``."""
        entries: dict[str, Any] = {}
        if self.mode != "ignore":
            entries |= {"collision": contact.collision, "clearance": contact.clearance}
        if contact.scan is not None:
            entries["scan"] = contact.scan.copy()
        return entries

    @property
    def _body(self) -> Body:
        return self.body or Body()
