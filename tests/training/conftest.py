from pathlib import Path

import pytest
from support.clips import write_clips

from mirage_sim.data.dataset import WalkDataset


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="session")
def data(clips: Path) -> WalkDataset:
    return WalkDataset(clips)
