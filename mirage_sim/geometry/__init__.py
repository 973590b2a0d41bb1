"""Rigid transforms, pinhole cameras, and the projection of points: all camera arithmetic of the package."""

from mirage_sim.geometry.camera import Camera
from mirage_sim.geometry.grid import cells_of
from mirage_sim.geometry.masked_projection import masked_coverage, masked_splat
from mirage_sim.geometry.motion import VelocityLimits
from mirage_sim.geometry.projection import (
    NEAR,
    Coverage,
    Splat,
    coverage,
    is_coarse,
    log_scale_of,
    project,
    scale_ratio,
    splat,
    unproject,
)
from mirage_sim.geometry.se3 import interpolate, invert, is_rigid, se3_exp, se3_log

__all__ = [
    "NEAR",
    "Camera",
    "Coverage",
    "VelocityLimits",
    "Splat",
    "cells_of",
    "coverage",
    "interpolate",
    "invert",
    "is_coarse",
    "is_rigid",
    "unproject",
    "scale_ratio",
    "masked_coverage",
    "masked_splat",
    "project",
    "se3_exp",
    "se3_log",
    "splat",
    "log_scale_of",
]
