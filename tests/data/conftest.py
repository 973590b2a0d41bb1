from collections.abc import Iterator

import pytest

from mirage_sim.data.miniworld import Twin


@pytest.fixture(scope="session")
def twin() -> Iterator[Twin]:
    try:
        made = Twin("RoomObjects")
    except ImportError as error:
        pytest.skip(str(error))
    yield made
    made.close()
