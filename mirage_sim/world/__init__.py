"""Worlds: an immutable state, a stateless model that advances it, and the :class:`World` session for users."""

from mirage_sim.world.body import Body, LocalObstacles
from mirage_sim.world.chunks import Horizon, frames_of, latents_of
from mirage_sim.world.conditioning import References, build_conditioning, stack_references
from mirage_sim.world.keyframes import Keyframe, Keyframes
from mirage_sim.world.motion_result import MotionResult, Obstacles
from mirage_sim.world.noise import noise
from mirage_sim.world.observation import Observation
from mirage_sim.world.session import NotReset, Session, Snapshot, World, step_together
from mirage_sim.world.state import Chunk, WorldState
from mirage_sim.world.world_model import WorldModel

__all__ = [
    "Body",
    "Chunk",
    "Keyframe",
    "Keyframes",
    "Horizon",
    "NotReset",
    "Observation",
    "Obstacles",
    "References",
    "Session",
    "Snapshot",
    "LocalObstacles",
    "MotionResult",
    "World",
    "WorldModel",
    "WorldState",
    "build_conditioning",
    "frames_of",
    "latents_of",
    "noise",
    "stack_references",
    "step_together",
]
