import inspect
from pathlib import Path

import numpy as np
import pytest
from support.toy_world import toy_model, toy_starts

from mirage_sim.build import build_world_model
from mirage_sim.models.wan.toy_checkpoint import toy_folder
from mirage_sim.world import World, WorldModel

#: Fixtures that render with OpenGL, and names of classes and functions that do.
RENDERING_FIXTURES = {"simulator", "renderer", "rendered", "home"}
RENDERING_NAMES = {"MiniWorldSimulator", "HomesSimulator", "make_simulator", "Renderer", "bench_simulators"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need ROS 2 or OpenGL, by their folder, their fixtures and the names in their code."""
    for item in items:
        assert isinstance(item, pytest.Function)
        code = inspect.unwrap(item.function).__code__
        if Path(__file__).parent / "ros" in item.path.parents or "rclpy" in code.co_consts:
            item.add_marker("ros")
        if RENDERING_FIXTURES & {*item.fixturenames} or RENDERING_NAMES & {*code.co_names}:
            item.add_marker("gl")


@pytest.fixture(scope="session")
def model() -> WorldModel:
    return toy_model()


@pytest.fixture(scope="session")
def starts() -> np.ndarray:
    return toy_starts()


@pytest.fixture(scope="session")
def backbone_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a cache folder with the weights of the toy backbone."""
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        toy_folder()
    return folder


@pytest.fixture(scope="session")
def backbone(backbone_cache: Path) -> WorldModel:
    """Build the world `wan5b-toy`: the classes of the Wan2.2 world at toy size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(backbone_cache))
        return build_world_model("wan5b-toy")


@pytest.fixture
def world(model: WorldModel, starts: np.ndarray) -> World:
    return World(model, starts)
