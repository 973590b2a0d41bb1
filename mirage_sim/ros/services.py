"""The services of ``std_srvs``, which every ROS has."""

from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from std_srvs.srv import SetBool, Trigger

from mirage_sim.ros.worker import Worker

STEP_WHILE_RUNNING = "the world runs by itself; pause it before stepping, or use mode:=lockstep"


class Services:
    """``~/reset``, ``~/step``, ``~/snapshot``, ``~/restore`` (Trigger) and ``~/pause`` (SetBool).

    They answer once the thing is done and its frame published; ``message`` says what time it is then, or why not.

    Args:
        node: whose.
        worker: who does it.
    """

    def __init__(self, node: Node, worker: Worker):
        self._worker = worker
        # in a group of their own, because they wait for the worker while commands must get through
        waiting = MutuallyExclusiveCallbackGroup()
        for name, order in (
            ("reset", lambda: worker.submit(lambda simulation: simulation.reset())),
            ("step", worker.step),
            ("snapshot", lambda: worker.submit(lambda simulation: simulation.snapshot())),
            ("restore", lambda: worker.submit(lambda simulation: simulation.restore())),
        ):
            node.create_service(Trigger, f"~/{name}", self._trigger(name, order), callback_group=waiting)
        node.create_service(SetBool, "~/pause", self._pause, callback_group=waiting)

    def _trigger(self, name: str, order: Callable[[], "Future[Any]"]) -> Callable[[Any, Any], Any]:
        def answer(_: Any, response: Any) -> Any:
            if name == "step" and not (self._worker.lockstep or self._worker.paused):
                response.success, response.message = False, STEP_WHILE_RUNNING
            else:
                response.success, response.message = outcome(order(), self._worker)
            return response

        return answer

    def _pause(self, request: Any, response: Any) -> Any:
        response.success, response.message = outcome(self._worker.pause(request.data), self._worker)
        return response


def outcome(future: "Future[Any]", worker: Worker) -> tuple[bool, str]:
    """Wait for what was ordered: whether it was done, and one line about it."""
    try:
        future.result()
    except CancelledError:
        return False, "the node is shutting down"
    except Exception as error:  # if it is more than a refusal, the worker ends with it
        return False, " ".join(str(error).split())
    return True, f"at {worker.seconds:.6f} s"
