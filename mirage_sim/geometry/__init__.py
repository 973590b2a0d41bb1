"""Rigid motions, pinhole cameras and the projection of points: the only room that does camera arithmetic."""

from mirage_sim.geometry.camera import Camera
from mirage_sim.geometry.grid import cells_of
from mirage_sim.geometry.masked_projection import masked_cover, masked_splat
from mirage_sim.geometry.motion import Drive
from mirage_sim.geometry.projection import (
    NEAR,
    Cover,
    Splat,
    cover,
    is_coarse,
    lift,
    magnified,
    project,
    splat,
    zoom_of,
)
from mirage_sim.geometry.se3 import interpolate, invert, is_rigid, se3_exp, se3_log

__all__ = [
    "NEAR",
    "Camera",
    "Cover",
    "Drive",
    "Splat",
    "cells_of",
    "cover",
    "interpolate",
    "invert",
    "is_coarse",
    "is_rigid",
    "lift",
    "magnified",
    "masked_cover",
    "masked_splat",
    "project",
    "se3_exp",
    "se3_log",
    "splat",
    "zoom_of",
]
