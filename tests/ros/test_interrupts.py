"""Ctrl-C while a node imports its modules."""

import signal
import subprocess
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed: pip install mirage_sim[ros], or source a system ROS")

from mirage_sim.ros.launching import node_command


@pytest.mark.parametrize("node", ["world", "policy"])
def test_interrupt_during_imports_ends_node_cleanly(node: str) -> None:
    python, *rest = node_command(node=node)
    streams: dict[str, Any] = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([python, "-X", "importtime", *rest], **streams) as process:
        assert process.stderr is not None
        # modules are reported after their imports: when torch's own appear, the node's are not done
        assert any(line.split("|")[-1].strip().startswith("torch.") for line in process.stderr)
        process.send_signal(signal.SIGINT)
        other = [line for line in process.stderr if not line.startswith("import time:")]
        assert process.stdout is not None and process.stdout.read() == ""
    assert process.returncode == 0
    assert other == []
