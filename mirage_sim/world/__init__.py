"""The world as a value: a stateless model that advances it, and the session that everything a user touches drives."""

from mirage_sim.world.body import Body, Surroundings, Travel
from mirage_sim.world.chunks import frames_of, latents_of
from mirage_sim.world.conditioning import build_conditioning
from mirage_sim.world.noise import noise
from mirage_sim.world.observation import Observation
from mirage_sim.world.session import NotReset, Snapshot, World, step_together
from mirage_sim.world.world_model import Chunk, WorldModel, WorldState

__all__ = [
    "Body",
    "Chunk",
    "NotReset",
    "Observation",
    "Snapshot",
    "Surroundings",
    "Travel",
    "World",
    "WorldModel",
    "WorldState",
    "build_conditioning",
    "frames_of",
    "latents_of",
    "noise",
    "step_together",
]
