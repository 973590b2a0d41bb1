"""Reference simulators: worlds with exact images, depth and collisions, for training and evaluation.

To add a simulator, write a class with the interface of :class:`ReferenceSimulator` in a module of this package and add
it to ``SIMULATORS`` in `simulator`. Recording, training and evaluation then take it by its name.
"""

from mirage_sim.data.simulators.simulator import (
    EVALUATION_SEEDS,
    SHIPPED_SEEDS,
    SIMULATORS,
    TRAINING_SEEDS,
    CameraMount,
    ReferenceSimulator,
    make_simulator,
    simulator_class,
)

__all__ = [
    "EVALUATION_SEEDS",
    "SHIPPED_SEEDS",
    "SIMULATORS",
    "TRAINING_SEEDS",
    "CameraMount",
    "ReferenceSimulator",
    "make_simulator",
    "simulator_class",
]
