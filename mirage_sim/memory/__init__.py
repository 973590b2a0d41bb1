"""Spatial memories: maps of 3D points, written by unprojection and read by projection."""

from mirage_sim.memory.latent_map import LatentMap
from mirage_sim.memory.point_memory import PointMemory
from mirage_sim.memory.rgb_memory import EmptyMemory, RgbMemory

__all__ = ["EmptyMemory", "LatentMap", "PointMemory", "RgbMemory"]
