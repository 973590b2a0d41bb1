from collections.abc import Iterator

import pytest
import torch

from benchmarks import scenes


@pytest.fixture(params=[1, 2, 4])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def room_views() -> torch.Tensor:
    """Points ``[12, 3072, 3]`` of a furnished room, as twelve cameras on a circle see it."""
    return scenes.room_views(12, (48, 64))
