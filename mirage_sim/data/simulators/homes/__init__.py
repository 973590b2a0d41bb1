"""Furnished apartments as a reference simulator."""

from mirage_sim.data.simulators.homes.simulator import ENVIRONMENTS, HomesSimulator

__all__ = ["ENVIRONMENTS", "HomesSimulator"]
