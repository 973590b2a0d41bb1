from collections.abc import Iterator

import pytest

from mirage_sim.data.simulators.miniworld import MiniWorldSimulator


@pytest.fixture(scope="session")
def simulator() -> Iterator[MiniWorldSimulator]:
    try:
        made = MiniWorldSimulator("RoomObjects")
    except ImportError as error:
        pytest.skip(str(error))
    yield made
    made.close()
