"""Services of simulation_interfaces. There is no wheel of it: plain classes replace its messages."""

import threading
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed: pip install mirage_sim[ros], or source a system ROS")

from mirage_sim.ros.parameters import WorldParameters  # noqa: E402
from mirage_sim.ros.services import _FEATURES, SimulatorControl  # noqa: E402
from mirage_sim.ros.simulation import Simulation  # noqa: E402
from mirage_sim.ros.worker import Worker  # noqa: E402

# values of the package's definitions
RESULT = SimpleNamespace(RESULT_FEATURE_UNSUPPORTED=0, RESULT_OK=1, RESULT_OPERATION_FAILED=4)
STATE = SimpleNamespace(STATE_STOPPED=0, STATE_PLAYING=1, STATE_PAUSED=2, STATE_QUITTING=3)
SCOPE = SimpleNamespace(SCOPE_DEFAULT=0, SCOPE_TIME=1, SCOPE_STATE=2, SCOPE_SPAWNED=4, SCOPE_ALL=255)
ALREADY = 101
MSG = SimpleNamespace(
    Result=RESULT,
    SimulationState=STATE,
    SimulatorFeatures=SimpleNamespace(**{name: i for i, name in enumerate(_FEATURES)}),
)
SRV = SimpleNamespace(
    ResetSimulation=SimpleNamespace(Request=SCOPE),
    SetSimulationState=SimpleNamespace(Response=SimpleNamespace(ALREADY_IN_TARGET_STATE=ALREADY)),
)
ACTION = SimpleNamespace(SimulateSteps=SimpleNamespace(Feedback=SimpleNamespace, Result=lambda: response()))


def response():
    return SimpleNamespace(
        result=SimpleNamespace(result=None, error_message=None),
        state=SimpleNamespace(state=None),
        features=SimpleNamespace(features=None, custom_info=None),
    )


class Goal:
    """The goal of an action, cancelled after some steps."""

    def __init__(self, steps, cancel_after=None):
        self.request = SimpleNamespace(steps=steps)
        self.feedback = []
        self.end = None
        self._cancel_after = cancel_after

    @property
    def is_cancel_requested(self):
        return self._cancel_after is not None and len(self.feedback) >= self._cancel_after

    def publish_feedback(self, feedback):
        self.feedback.append((feedback.completed_steps, feedback.remaining_steps))

    def succeed(self):
        self.end = "succeeded"

    def canceled(self):
        self.end = "canceled"

    def abort(self):
        self.end = "aborted"


@pytest.fixture(scope="module")
def running():
    simulation = Simulation(WorldParameters(scan_rays=0, collisions="ignore", real_time_factor=0.1))
    worker = Worker(simulation, lambda frame: None, lambda frame: None, lambda error: None)
    worker.start()
    has_quit = threading.Event()
    yield SimulatorControl(worker, has_quit.set, MSG, SRV, ACTION), worker, has_quit
    worker.stop()
    simulation.close()


@pytest.fixture
def control(running):
    running[1].pause(True)
    assert reset(running[0], SCOPE.SCOPE_ALL) == RESULT.RESULT_OK
    return running[0]


def step_count(running):
    return running[1].submit(lambda simulation: simulation.steps).result(60)


def reset(control, scope):
    return control.reset(SimpleNamespace(scope=scope), response()).result.result


def step(control, steps):
    return control.step(SimpleNamespace(steps=steps), response()).result


def set_state(control, state):
    return control.set_state(SimpleNamespace(state=SimpleNamespace(state=state)), response()).result.result


def get_state(control):
    return control.get_state(None, response()).state.state


def test_features_are_listed(control):
    assert control.features(None, response()).features.features == list(range(len(_FEATURES)))


@pytest.mark.parametrize(
    ("scope", "seconds"),
    [
        (SCOPE.SCOPE_DEFAULT, 0.0),
        (SCOPE.SCOPE_ALL, 0.0),
        (SCOPE.SCOPE_TIME, 0.0),
        (SCOPE.SCOPE_STATE, 0.3),
        (SCOPE.SCOPE_STATE | SCOPE.SCOPE_SPAWNED, 0.3),
        (SCOPE.SCOPE_STATE | SCOPE.SCOPE_TIME, 0.0),
    ],
)
def test_only_some_scopes_rewind_the_clock(control, running, scope, seconds):
    running[1].submit(lambda simulation: simulation.command(1.0, 0.0)).result(60)
    step(control, 2)
    assert reset(control, scope) == RESULT.RESULT_OK
    assert running[1].seconds == pytest.approx(seconds)
    distance = running[1].submit(lambda simulation: float(simulation.frame.camera.c2w[:3, 3].norm())).result(60)
    assert distance == pytest.approx(0.2 if scope == SCOPE.SCOPE_TIME else 0.0, abs=1e-4)


def test_reset_of_spawned_entities_is_unsupported(control):
    assert reset(control, SCOPE.SCOPE_SPAWNED) == RESULT.RESULT_FEATURE_UNSUPPORTED


def test_step_is_refused_while_running(control, running):
    before = step_count(running)
    assert step(control, 3).result == RESULT.RESULT_OK
    assert step_count(running) == before + 3
    running[1].pause(False)
    refused = step(control, 1)
    assert refused.result == RESULT.RESULT_OPERATION_FAILED and "pause it before" in refused.error_message


def test_states_can_be_set_and_read(control, running):
    assert get_state(control) == STATE.STATE_PAUSED
    assert set_state(control, STATE.STATE_PAUSED) == ALREADY
    assert set_state(control, STATE.STATE_PLAYING) == RESULT.RESULT_OK
    assert get_state(control) == STATE.STATE_PLAYING and not running[1].paused
    assert set_state(control, STATE.STATE_STOPPED) == RESULT.RESULT_OK
    assert get_state(control) == STATE.STATE_STOPPED and running[1].seconds == 0.0
    step(control, 1)
    assert get_state(control) == STATE.STATE_PAUSED
    assert set_state(control, 77) == RESULT.RESULT_OPERATION_FAILED
    assert set_state(control, STATE.STATE_QUITTING) == RESULT.RESULT_OK and running[2].is_set()


def test_action_steps_with_feedback(control, running):
    goal = Goal(3)
    assert control.simulate_steps(goal).result.result == RESULT.RESULT_OK
    assert goal.end == "succeeded" and goal.feedback == [(1, 2), (2, 1), (3, 0)]


def test_action_can_be_cancelled(control, running):
    before = step_count(running)
    goal = Goal(1000, cancel_after=2)
    assert control.simulate_steps(goal).result.error_message == "cancelled after 2 of 1000 steps"
    assert goal.end == "canceled" and step_count(running) == before + 2


def test_action_is_refused_while_running(control, running):
    running[1].pause(False)
    goal = Goal(1)
    assert control.simulate_steps(goal).result.result == RESULT.RESULT_OPERATION_FAILED
    assert goal.end == "aborted"
