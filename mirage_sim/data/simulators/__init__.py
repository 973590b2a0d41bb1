"""Reference simulators: worlds with exact images, depth and collisions, to train on and to measure against."""

from mirage_sim.data.simulators.simulator import (
    EVALUATION_SEEDS,
    SHIPPED_SEEDS,
    SIMULATORS,
    TRAINING_SEEDS,
    CameraMount,
    ReferenceSimulator,
    make_simulator,
)

__all__ = [
    "EVALUATION_SEEDS",
    "SHIPPED_SEEDS",
    "SIMULATORS",
    "TRAINING_SEEDS",
    "CameraMount",
    "ReferenceSimulator",
    "make_simulator",
]
