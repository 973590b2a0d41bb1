"""What this machine has, which worlds it can run, and what to do about what is missing."""

import importlib.metadata
import importlib.util
import platform
from pathlib import Path

import torch

from mirage_sim.evaluation.provenance import cpu
from mirage_sim.models.wan import download
from mirage_sim.models.wan.requirements import GIB, Setting, machine, missing_requirements, parameters
from mirage_sim.paths import ASSETS
from mirage_sim.settings import DoctorSettings

# module, what to say to pip, what for
OPTIONAL = (
    ("transformers", "'mirage_sim[wan]'", "wan5b: prompts; depth; what moves"),
    ("accelerate", "'mirage_sim[wan]'", "wan5b: loading"),
    ("torchao", "torchao", "wan5b: weights in 8 bits"),
    ("torchvision", "torchvision (the one made for your torch)", "SAM 3 and Qwen3-VL"),
    ("depth_anything_3", "--no-deps depth-anything-3, then what its import asks for", "Depth Anything 3"),
    ("mapanything", "git+https://github.com/facebookresearch/map-anything", "MapAnything"),
    ("unidepth", "git+https://github.com/lpiccinelli-eth/UniDepth", "UniDepth"),
    ("rclpy", "'mirage_sim[ros]'", "ROS 2"),
    ("miniworld", "'mirage_sim[twin]'", "the true simulator, for evaluation"),
    ("stable_baselines3", "'mirage_sim[learn]'", "learned policies"),
    ("rosbags", "'mirage_sim[data]'", "bags"),
    ("viser", "'mirage_sim[viewer]'", "the viewer"),
)


def doctor(settings: DoctorSettings) -> dict[str, str]:
    """Look around.

    Args:
        settings: ``wan5b`` is the folder of the real backbone's weights.

    Returns:
        Lines to show, by what they are about.
    """
    here = machine()
    folder = Path(settings.wan5b) if settings.wan5b else download.default_folder()
    lines = {
        "host": f"{cpu()}; {here.ram_gib:.1f} GiB of memory free; Python {platform.python_version()}",
        "device": f"{here.gpu}, {here.gpu_gib:.1f} GiB free" if here.gpu else "no GPU that this torch can use",
    }
    lines["torch"] = str(torch.__version__)  # with the build, such as +cpu, which what was installed may not tell
    lines["diffusers"] = _version("diffusers")
    for module, install, purpose in OPTIONAL:
        found = importlib.util.find_spec(module) is not None
        lines[module] = _version(module) if found else f"missing ({purpose}): pip install {install}"
    for name, needs, missing in (
        ("mini", f"{mini_gib():.2f}", []),
        ("wan5b", _needs(), missing_requirements(here, folder, Setting())),
    ):
        verdict = "cannot run yet" if missing else "can run"
        lines[f"world={name}"] = f"{verdict}; weights, in GiB (computed): {needs}"
        lines |= {f"world={name}, to do {number}": problem for number, problem in enumerate(missing, 1)}
    return lines


def _needs() -> str:
    parts = ", ".join(f"{name} {2 * count / GIB:.1f}" for name, count in parameters().items())
    return f"{parts} (only while prompts are new); all in bfloat16"


def mini_gib() -> float:
    """The built-in world's weights in float32; they are stored in half of it."""
    return 2 * sum(path.stat().st_size for path in (ASSETS / "mini").glob("*.safetensors")) / GIB


def _version(module: str) -> str:
    names = importlib.metadata.packages_distributions().get(module, [module])
    try:
        return importlib.metadata.version(names[0])
    except importlib.metadata.PackageNotFoundError:
        return "installed"
