"""The services of ``simulation_interfaces``, which simulators share, where that package is installed."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

from rclpy.action import ActionServer, CancelResponse
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node

from mirage_sim.ros.services import STEP_WHILE_RUNNING, outcome
from mirage_sim.ros.worker import Worker

_FEATURES = (
    "SIMULATION_RESET",
    "SIMULATION_RESET_TIME",
    "SIMULATION_RESET_STATE",
    "SIMULATION_STATE_GETTING",
    "SIMULATION_STATE_SETTING",
    "SIMULATION_STATE_PAUSE",
    "STEP_SIMULATION_SINGLE",
    "STEP_SIMULATION_MULTIPLE",
    "STEP_SIMULATION_ACTION",
)


class SimulatorControl:
    """Answers requests of ``simulation_interfaces``.

    Args:
        worker: who does what is asked for.
        quit: ends the node.
        msg: the module ``simulation_interfaces.msg``.
        srv: the module ``simulation_interfaces.srv``.
        action: the module ``simulation_interfaces.action``.
    """

    def __init__(self, worker: Worker, quit: Callable[[], None], msg: ModuleType, srv: ModuleType, action: ModuleType):
        self._worker = worker
        self._quit = quit
        self._result, self._states, self._features = msg.Result, msg.SimulationState, msg.SimulatorFeatures
        self._scopes, self._codes = srv.ResetSimulation.Request, srv.SetSimulationState.Response
        self._steps = action.SimulateSteps
        self._stopped = False  # by a request; paused, and nothing has happened since

    def features(self, _: Any, response: Any) -> Any:
        """``GetSimulatorFeatures``."""
        response.features.features = [getattr(self._features, name) for name in _FEATURES]
        response.features.custom_info = "a world model: nothing can be spawned in it"
        return response

    def reset(self, request: Any, response: Any) -> Any:
        """``ResetSimulation``: the world, the clock or both. Only DEFAULT, ALL and TIME rewind the clock."""
        scopes, scope = self._scopes, request.scope
        everything = scope == scopes.SCOPE_DEFAULT
        state, clock = everything or scope & scopes.SCOPE_STATE, everything or scope & scopes.SCOPE_TIME
        if state:
            future = self._worker.submit(lambda simulation: simulation.reset(rewind=bool(clock)))
        elif clock:
            future = self._worker.submit(lambda simulation: simulation.rewind_clock())
        else:
            unsupported = self._result.RESULT_FEATURE_UNSUPPORTED
            self._fill(response.result, unsupported, f"scope: expected DEFAULT, TIME, STATE or ALL, got {scope}")
            return response
        self._say(response.result, *outcome(future, self._worker))
        return response

    def get_state(self, _: Any, response: Any) -> Any:
        """``GetSimulationState``."""
        response.state.state = self._state()
        self._say(response.result, True, "")
        return response

    def set_state(self, request: Any, response: Any) -> Any:
        """``SetSimulationState``: playing, paused, stopped (paused and reset with ALL) or quitting."""
        wanted, states = request.state.state, self._states
        done, text = True, ""
        if wanted == self._state():
            self._fill(response.result, self._codes.ALREADY_IN_TARGET_STATE, "nothing to do")
            return response
        if wanted == states.STATE_QUITTING:
            self._quit()
        elif wanted in (states.STATE_PLAYING, states.STATE_PAUSED, states.STATE_STOPPED):
            self._stopped = wanted == states.STATE_STOPPED
            future = self._worker.pause(wanted != states.STATE_PLAYING)
            if self._stopped:
                future = self._worker.submit(lambda simulation: simulation.reset(rewind=True))
            done, text = outcome(future, self._worker)
        else:
            done, text = False, f"state: expected STOPPED, PLAYING, PAUSED or QUITTING, got {wanted}"
        self._say(response.result, done, text)
        return response

    def step(self, request: Any, response: Any) -> Any:
        """``StepSimulation``; answers once all steps are made."""
        self._say(response.result, *self._make(request.steps, lambda made: True))
        return response

    def simulate_steps(self, goal: Any) -> Any:
        """The action ``SimulateSteps``: as the service, with feedback after each step, and it can be cancelled."""
        steps = goal.request.steps

        def go_on(made: int) -> bool:
            if made:
                goal.publish_feedback(self._steps.Feedback(completed_steps=made, remaining_steps=steps - made))
            return not goal.is_cancel_requested

        done, text = self._make(steps, go_on)
        if goal.is_cancel_requested:
            goal.canceled()
        elif done:
            goal.succeed()
        else:
            goal.abort()
        result = self._steps.Result()
        self._say(result.result, done, text)
        return result

    def _make(self, steps: int, go_on: Callable[[int], bool]) -> tuple[bool, str]:
        """Make steps, one by one, for as long as ``go_on(steps made so far)`` says so."""
        for made in range(steps):
            if not (self._worker.lockstep or self._worker.paused):
                return False, STEP_WHILE_RUNNING
            if not go_on(made):
                return False, f"cancelled after {made} of {steps} steps"
            self._stopped = False
            done, text = outcome(self._worker.step(), self._worker)
            if not done:
                return False, text
        go_on(steps)
        return True, ""

    def _state(self) -> int:
        if not self._worker.paused:
            return int(self._states.STATE_PLAYING)
        return int(self._states.STATE_STOPPED if self._stopped else self._states.STATE_PAUSED)

    def _say(self, result: Any, done: bool, text: str) -> None:
        self._fill(result, self._result.RESULT_OK if done else self._result.RESULT_OPERATION_FAILED, text)

    @staticmethod
    def _fill(result: Any, code: int, text: str) -> None:
        result.result, result.error_message = code, text


def offer(node: Node, worker: Worker) -> None:
    """Offer the services and the action in the node's namespace; one log line where the package is missing."""
    try:
        from simulation_interfaces import action, msg, srv
    except ImportError:
        node.get_logger().info("simulation_interfaces is not installed: its services are not offered")
        return
    control = SimulatorControl(worker, node.context.try_shutdown, msg, srv, action)
    waiting = MutuallyExclusiveCallbackGroup()  # apart from commands, because they wait for the worker
    # the features first, because clients ask for them before anything else
    node.create_service(srv.GetSimulatorFeatures, "~/get_simulator_features", control.features)
    node.create_service(srv.GetSimulationState, "~/get_simulation_state", control.get_state)
    node.create_service(srv.SetSimulationState, "~/set_simulation_state", control.set_state, callback_group=waiting)
    node.create_service(srv.ResetSimulation, "~/reset_simulation", control.reset, callback_group=waiting)
    node.create_service(srv.StepSimulation, "~/step_simulation", control.step, callback_group=waiting)
    ActionServer(
        node,
        action.SimulateSteps,
        "~/simulate_steps",
        control.simulate_steps,
        cancel_callback=lambda goal: CancelResponse.ACCEPT,
        callback_group=MutuallyExclusiveCallbackGroup(),
    )
