"""Ctrl-C while a node is still being imported."""

import signal
import subprocess
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed: pip install mirage_sim[ros], or source a system ROS")

from mirage_sim.ros.launching import POLICY_MODULE, WORLD_MODULE, node_command


@pytest.mark.parametrize("module", [WORLD_MODULE, POLICY_MODULE])
def test_an_interrupt_during_imports_ends_it_cleanly(module: str) -> None:
    python, *rest = node_command(module=module)
    streams: dict[str, Any] = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([python, "-X", "importtime", *rest], **streams) as process:
        assert process.stderr is not None
        # each module is told once it is there, what it needs before itself: torch is far from it
        assert any(line.split("|")[-1].strip().startswith("torch.") for line in process.stderr)
        process.send_signal(signal.SIGINT)
        said = [line for line in process.stderr if not line.startswith("import time:")]
        assert process.stdout is not None and process.stdout.read() == ""
    assert process.returncode == 0
    assert said == []
