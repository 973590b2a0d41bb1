"""The machine: processor, commit and packages, the worlds that it can run, and how to install what is missing.

Importing this module is fast, because the command line does so.
"""

import importlib.util
import os
import platform
import subprocess
from pathlib import Path

import mirage_sim
from mirage_sim.paths import ASSETS
from mirage_sim.settings import DoctorSettings

# module, argument of pip install, purpose
OPTIONAL = (
    ("transformers", "'mirage_sim[wan]'", "wan5b: prompts, depth, dynamic objects"),
    ("accelerate", "'mirage_sim[wan]'", "wan5b: loading"),
    ("torchao", "torchao", "wan5b: 8-bit weights"),
    ("torchvision", "torchvision (the build for your torch)", "SAM 3 and Qwen3-VL"),
    ("depth_anything_3", "--no-deps depth-anything-3, then the packages that its import names", "Depth Anything 3"),
    ("mapanything", "git+https://github.com/facebookresearch/map-anything", "MapAnything"),
    ("unidepth", "git+https://github.com/lpiccinelli-eth/UniDepth", "UniDepth"),
    ("rclpy", "'mirage_sim[ros]'", "ROS 2"),
    ("miniworld", "'mirage_sim[twin]'", "the reference simulator, for evaluation"),
    ("stable_baselines3", "'mirage_sim[learn]'", "learned policies"),
    ("rosbags", "'mirage_sim[data]'", "bags"),
    ("pyarrow", "'mirage_sim[data]'", "LeRobot data sets"),
    ("viser", "'mirage_sim[viewer]'", "the viewer"),
)


def cpu() -> str:
    """Model and number of usable cores, such as ``"AMD EPYC 7B13, 2 cores"``."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cores} cores"


def commit() -> str:
    """Commit of the checkout that this package runs from (``-dirty`` when changed), else the package's version."""
    root = Path(mirage_sim.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return f"v{mirage_sim.__version__}"
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # git is not installed, or does not trust the folder
        return f"v{mirage_sim.__version__}"


def doctor(settings: DoctorSettings) -> dict[str, str]:
    """Describe this machine: hardware, packages, and for each world whether it can run and what to do.

    Args:
        settings: ``wan5b`` is the folder of the real backbone's weights.

    Returns:
        Lines to show, by topic.
    """
    import torch

    from mirage_sim.models.wan import download
    from mirage_sim.models.wan.requirements import Setting, machine, missing_requirements

    hardware = machine()
    folder = Path(settings.wan5b) if settings.wan5b else download.default_folder()
    gpu = f"{hardware.gpu}, {hardware.gpu_gib:.1f} GiB free" if hardware.gpu else "no GPU that this torch can use"
    lines = {
        "host": f"{cpu()}; {hardware.ram_gib:.1f} GiB of memory free; Python {platform.python_version()}",
        "device": gpu,
        "torch": str(torch.__version__),  # with its build, such as +cpu, which package metadata may lack
        "diffusers": _version("diffusers"),
    }
    for module, install, purpose in OPTIONAL:
        found = importlib.util.find_spec(module) is not None
        lines[module] = _version(module) if found else f"missing ({purpose}): pip install {install}"
    for name, weights, missing in (
        ("mini", f"{_mini_gib():.2f}", []),
        ("wan5b", _backbone_weights(), missing_requirements(hardware, folder, Setting())),
    ):
        verdict = "cannot run yet" if missing else "can run"
        lines[f"world={name}"] = f"{verdict}; weights, in GiB (computed): {weights}"
        lines |= {f"world={name}, to do {number}": problem for number, problem in enumerate(missing, 1)}
    return lines


def _backbone_weights() -> str:
    from mirage_sim.models.wan.requirements import GIB, parameters

    parts = ", ".join(f"{name} {2 * count / GIB:.1f}" for name, count in parameters().items())
    return f"{parts} (only while prompts are new); all in bfloat16"


def _mini_gib() -> float:
    """Size of the built-in world's weights in float32; the files store float16."""
    return 2 * sum(path.stat().st_size for path in (ASSETS / "mini").glob("*.safetensors")) / 2**30


def _version(module: str) -> str:
    import importlib.metadata

    names = importlib.metadata.packages_distributions().get(module, [module])
    try:
        return importlib.metadata.version(names[0])
    except importlib.metadata.PackageNotFoundError:
        return "installed"
