"""Services of the node `mirage_world`: those of ``std_srvs``, and those of ``simulation_interfaces`` if installed."""

from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from types import ModuleType
from typing import Any

from rclpy.action import ActionServer, CancelResponse
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from std_srvs.srv import SetBool, Trigger

from mirage_sim.ros.worker import Worker

STEP_WHILE_RUNNING = "the world runs by itself; pause it before stepping, or use mode:=lockstep"
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


def outcome(future: "Future[Any]", worker: Worker) -> tuple[bool, str]:
    """Wait for a task of the worker; return whether it succeeded, and a message."""
    try:
        future.result()
    except CancelledError:
        return False, "the node is shutting down"
    except Exception as error:  # refused; if the task broke, the worker reports it and ends the node
        return False, " ".join(str(error).split())
    return True, f"at {worker.seconds:.6f} s"


def step(worker: Worker) -> tuple[bool, str]:
    """Make one step if the world does not run by itself; return whether it was made, and a message."""
    if not (worker.lockstep or worker.paused):
        return False, STEP_WHILE_RUNNING
    return outcome(worker.step(), worker)


def offer(node: Node, worker: Worker, observe: bool) -> None:
    """Offer ``~/reset``, ``~/step``, ``~/snapshot``, ``~/restore`` (Trigger) and ``~/pause`` (SetBool).

    If a robot is observed, ``~/start_here`` (Trigger) as well.

    A service responds after its work is done and the frame is published. ``message`` contains the simulation time, or
    the reason of a failure.
    """

    def respond(call: Callable[[Any], tuple[bool, str]]) -> Callable[[Any, Any], Any]:
        def callback(request: Any, response: Any) -> Any:
            response.success, response.message = call(request)
            return response

        return callback

    calls: dict[str, Callable[[Any], tuple[bool, str]]] = {
        "reset": lambda _: outcome(worker.submit(lambda simulation: simulation.reset()), worker),
        "step": lambda _: step(worker),
        "snapshot": lambda _: outcome(worker.submit(lambda simulation: simulation.snapshot()), worker),
        "restore": lambda _: outcome(worker.submit(lambda simulation: simulation.restore()), worker),
        "pause": lambda request: outcome(worker.pause(request.data), worker),
    }
    # a group of their own, because services wait for the worker while commands must get through
    group = MutuallyExclusiveCallbackGroup()
    if observe:
        calls["start_here"] = lambda _: outcome(worker.submit(lambda simulation: simulation.start_here()), worker)
    for name, call in calls.items():
        kind = SetBool if name == "pause" else Trigger
        node.create_service(kind, f"~/{name}", respond(call), callback_group=group)


class SimulatorControl:
    """Callbacks of the services and the action of ``simulation_interfaces``.

    Args:
        worker: steps the world.
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
        self._stopped = False  # paused by a request to stop, and not stepped since

    def features(self, _: Any, response: Any) -> Any:
        """Handle ``GetSimulatorFeatures``."""
        response.features.features = [getattr(self._features, name) for name in _FEATURES]
        response.features.custom_info = "a world model: entities cannot be spawned"
        return response

    def reset(self, request: Any, response: Any) -> Any:
        """Handle ``ResetSimulation``: reset the world, the clock or both. Scope STATE does not rewind the clock."""
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
        self._report(response.result, *outcome(future, self._worker))
        return response

    def get_state(self, _: Any, response: Any) -> Any:
        """Handle ``GetSimulationState``."""
        response.state.state = self._state()
        self._report(response.result, True, "")
        return response

    def set_state(self, request: Any, response: Any) -> Any:
        """Handle ``SetSimulationState``: playing, paused, stopped (paused and reset with ALL) or quitting."""
        target, states = request.state.state, self._states
        done, text = True, ""
        if target == self._state():
            self._fill(response.result, self._codes.ALREADY_IN_TARGET_STATE, "already in this state")
            return response
        if target == states.STATE_QUITTING:
            self._quit()
        elif target in (states.STATE_PLAYING, states.STATE_PAUSED, states.STATE_STOPPED):
            self._stopped = target == states.STATE_STOPPED
            future = self._worker.pause(target != states.STATE_PLAYING)
            if self._stopped:
                future = self._worker.submit(lambda simulation: simulation.reset(rewind=True))
            done, text = outcome(future, self._worker)
        else:
            done, text = False, f"state: expected STOPPED, PLAYING, PAUSED or QUITTING, got {target}"
        self._report(response.result, done, text)
        return response

    def step(self, request: Any, response: Any) -> Any:
        """Handle ``StepSimulation``; responds after all steps are made."""
        self._report(response.result, *self._make_steps(request.steps, lambda completed: True))
        return response

    def simulate_steps(self, goal: Any) -> Any:
        """Execute the action ``SimulateSteps``: like the service, with feedback after each step and cancellation."""
        steps = goal.request.steps

        def proceed(completed: int) -> bool:
            if completed:
                feedback = self._steps.Feedback(completed_steps=completed, remaining_steps=steps - completed)
                goal.publish_feedback(feedback)
            return not goal.is_cancel_requested

        done, text = self._make_steps(steps, proceed)
        if goal.is_cancel_requested:
            goal.canceled()
        elif done:
            goal.succeed()
        else:
            goal.abort()
        result = self._steps.Result()
        self._report(result.result, done, text)
        return result

    def _make_steps(self, steps: int, proceed: Callable[[int], bool]) -> tuple[bool, str]:
        """Make steps while `proceed`, called with the number of completed steps, returns True."""
        for completed in range(steps):
            if not proceed(completed):
                return False, f"cancelled after {completed} of {steps} steps"
            done, text = step(self._worker)
            if not done:
                return False, text
            self._stopped = False
        proceed(steps)
        return True, ""

    def _state(self) -> int:
        if not self._worker.paused:
            return int(self._states.STATE_PLAYING)
        return int(self._states.STATE_STOPPED if self._stopped else self._states.STATE_PAUSED)

    def _report(self, result: Any, done: bool, text: str) -> None:
        self._fill(result, self._result.RESULT_OK if done else self._result.RESULT_OPERATION_FAILED, text)

    @staticmethod
    def _fill(result: Any, code: int, text: str) -> None:
        result.result, result.error_message = code, text


def offer_simulation_interfaces(node: Node, worker: Worker) -> None:
    """Offer the services and the action of ``simulation_interfaces``; log a line if that package is not installed."""
    try:
        from simulation_interfaces import action, msg, srv
    except ImportError:
        node.get_logger().info("simulation_interfaces is not installed: its services are not offered")
        return
    control = SimulatorControl(worker, node.context.try_shutdown, msg, srv, action)
    group = MutuallyExclusiveCallbackGroup()  # apart from commands, because these wait for the worker
    # features first: clients ask for them before anything else
    node.create_service(srv.GetSimulatorFeatures, "~/get_simulator_features", control.features)
    node.create_service(srv.GetSimulationState, "~/get_simulation_state", control.get_state)
    node.create_service(srv.SetSimulationState, "~/set_simulation_state", control.set_state, callback_group=group)
    node.create_service(srv.ResetSimulation, "~/reset_simulation", control.reset, callback_group=group)
    node.create_service(srv.StepSimulation, "~/step_simulation", control.step, callback_group=group)
    ActionServer(
        node,
        action.SimulateSteps,
        "~/simulate_steps",
        control.simulate_steps,
        cancel_callback=lambda goal: CancelResponse.ACCEPT,
        callback_group=MutuallyExclusiveCallbackGroup(),
    )
