import numpy as np
import pytest
from toy import toy_model, toy_starts

from mirage_sim.world import World, WorldModel


@pytest.fixture(scope="session")
def model() -> WorldModel:
    return toy_model()


@pytest.fixture(scope="session")
def starts() -> np.ndarray:
    return toy_starts()


@pytest.fixture
def world(model: WorldModel, starts: np.ndarray) -> World:
    return World(model, starts)
