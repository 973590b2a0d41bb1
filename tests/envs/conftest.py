import gymnasium
import pytest

import mirage_sim  # noqa: F401  (registers the environments)


@pytest.fixture
def display(monkeypatch):
    """Lets windows open where there is no screen; a list of what was done to them."""
    import cv2

    shown = []
    monkeypatch.setenv("DISPLAY", ":99")
    for name in ("namedWindow", "imshow", "destroyWindow"):
        monkeypatch.setattr(cv2, name, lambda *arguments, name=name: shown.append((name, arguments)))
    monkeypatch.setattr(cv2, "waitKey", lambda delay: -1)
    return shown


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
