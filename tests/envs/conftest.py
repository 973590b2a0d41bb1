import gymnasium
import pytest

import mirage_sim  # noqa: F401  (registers the environments)


@pytest.fixture
def make(model, starts):
    """Make ``MirageWorld-v0`` on the toy world."""
    made = []

    def make(**arguments):
        env = gymnasium.make("MirageWorld-v0", world=model, starts=starts, **arguments)
        made.append(env)
        return env

    yield make
    for env in made:
        env.close()
