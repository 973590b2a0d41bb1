"""Ctrl-C while a node imports its modules, and while it runs."""

import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed: pip install mirage_sim[ros], or source a system ROS")

from benchmarks.ros_process import NodeProcess, private_domain
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


@pytest.mark.parametrize(("node", "line"), [("world", "runs, mode"), ("policy", "waiting for images")])
def test_interrupt_ends_node_quickly_without_leftovers(node: str, line: str) -> None:
    """`ros2 launch` sends further signals after five seconds."""
    with NodeProcess(private_domain(), node_command(node=node)) as process:
        process.wait_for_line(line)
        mapped = Path(f"/proc/{process.process.pid}/maps").read_text().split()
        # a participant's own segments; the ports of a domain are shared with other participants
        segments = {name for name in mapped if re.fullmatch(r"/dev/shm/fastdds_[0-9a-f]{16}", name)}
        began = time.perf_counter()
        process.interrupt()
        assert process.end() == 0
        assert time.perf_counter() - began < 5.0
    assert segments
    assert not [name for name in segments if Path(name).exists()]
