"""Collision handling of the environment."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from mirage_sim.geometry import Camera
from mirage_sim.world import Body, Obstacles, Session

CollisionMode = Literal["ignore", "report", "block", "slide"]


class ContactState(NamedTuple):
    """Collision, clearance and scan at one moment; immutable, as part of a snapshot.

    Attributes:
        collision: whether an obstacle was in the way of the latest motion.
        clearance: metres to the nearest obstacle; infinite if there is none.
        scan: float32 ``[rays]``, metres, infinite without an obstacle; None if no scan is configured.
        around: obstacles around the body, for the next motion; None if neither collisions nor a scan are configured.
    """

    collision: bool = False
    clearance: float = float("inf")
    scan: np.ndarray | None = None
    around: Obstacles | None = None


@dataclass(frozen=True)
class Collisions:
    """Collision settings of an environment.

    Attributes:
        mode: ``"ignore"``, or a response of :meth:`mirage_sim.world.LocalObstacles.travel`.
        body: None for the default body.
        rays: number of rays of the range scan; None for no scan.

    Raises:
        ValueError: if a setting is unknown, out of range or contradicts another.
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
            raise ValueError("body: expected None with collisions='ignore' and scan=None, which do not use a body")

    def check_conditions(self, terminate_on: Sequence[Any]) -> None:
        """Check that the termination conditions can occur.

        Raises:
            ValueError: if ``"collision"`` is a condition but collisions are ignored.
        """
        if self.mode == "ignore" and "collision" in terminate_on:
            raise ValueError("terminate_on: expected no 'collision' with collisions='ignore', got 'collision'")

    def move(self, contact: ContactState, goal: Camera) -> tuple[Camera, bool]:
        """Move from the position of ``contact`` towards a camera; return the camera reached and whether it collided."""
        if self.mode == "ignore" or contact.around is None:
            return goal, False
        travel = contact.around.travel(goal, self.mode)
        return travel.camera, travel.collision

    def query(self, world: Session, collision: bool = False) -> ContactState:
        """Return the contact state at the world's current camera."""
        if self.mode == "ignore" and self.rays is None:
            return ContactState()
        around = world.obstacles(self._body)
        scan = None if self.rays is None else around.scan(self.rays)
        return ContactState(collision, around.clearance, scan, around)

    def info(self, contact: ContactState) -> dict[str, Any]:
        """Return the entries of ``info``."""
        entries: dict[str, Any] = {}
        if self.mode != "ignore":
            entries |= {"collision": contact.collision, "clearance": contact.clearance}
        if contact.scan is not None:
            entries["scan"] = contact.scan.copy()
        return entries

    @property
    def _body(self) -> Body:
        return self.body or Body()
