"""Rollouts of plain settings, which tests change with ``|``."""

from typing import Any

from mirage_sim.agents.rollout import rollout
from mirage_sim.settings import RolloutSettings


def rollout_of(values: dict[str, Any]) -> dict[str, Any]:
    """Run a rollout with settings by the names that users type."""
    return rollout(RolloutSettings.read(values))
