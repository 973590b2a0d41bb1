from pathlib import Path

import numpy as np
import pytest
from support.toy_world import toy_model, toy_starts

from mirage_sim.build import build_world_model
from mirage_sim.models.wan.toy_checkpoint import toy_folder
from mirage_sim.world import World, WorldModel


@pytest.fixture(scope="session")
def model() -> WorldModel:
    return toy_model()


@pytest.fixture(scope="session")
def starts() -> np.ndarray:
    return toy_starts()


@pytest.fixture(scope="session")
def backbone_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the toy backbone's weights are, and its prompts will be."""
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        toy_folder()
    return folder


@pytest.fixture(scope="session")
def backbone(backbone_cache: Path) -> WorldModel:
    """The world of the real backbone's classes, at toy size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(backbone_cache))
        return build_world_model("wan5b-toy")


@pytest.fixture
def world(model: WorldModel, starts: np.ndarray) -> World:
    return World(model, starts)
