"""Spatial memories: persistent maps of what was seen, written along depth and read from other cameras."""

from mirage_sim.memory.latent_map import LatentMap
from mirage_sim.memory.point_memory import PointMemory
from mirage_sim.memory.rgb_memory import EmptyMemory, RgbMemory

__all__ = ["EmptyMemory", "LatentMap", "PointMemory", "RgbMemory"]
