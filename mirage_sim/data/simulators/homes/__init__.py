"""Furnished apartments as a reference simulator.

:class:`HomesSimulator` makes a home of a seed in these steps:

1. `floor_plan` draws rooms, walls, doors and windows.
2. `furnishing` chooses furniture by the kind of room; `room_planner` finds its positions.
3. `collision` measures the distance to the nearest obstacle.
4. `building` converts the result to a `scene`, with the textures of `surfaces`.
5. `rendering` computes the light and draws images, depth and masks.

`furniture` defines pieces of furniture and makes them.
"""

from mirage_sim.data.simulators.homes.simulator import ENVIRONMENTS, HomesSimulator

__all__ = ["ENVIRONMENTS", "HomesSimulator"]
