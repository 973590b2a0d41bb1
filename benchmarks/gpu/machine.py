"""Reports the machine: card, driver, libraries, commit, and whether OpenGL starts without a display."""

import importlib.metadata
import json
import platform
import subprocess
import sys
from pathlib import Path

from report import Part

LIBRARIES = ("torch", "numpy", "numba", "diffusers", "transformers", "accelerate", "gymnasium", "safetensors")
RENDERER = "import moderngl; print(moderngl.create_context(standalone=True, backend='egl').info['GL_RENDERER'])"
BUNDLE = Path(__file__).parent / "bundle"


def main() -> None:
    """Report everything."""
    part = Part("machine", __doc__)
    report = part.report
    report.put("python", platform.python_version())
    for name in LIBRARIES:
        try:
            report.put(name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError as error:
            report.missing(name, f"not installed: {error}")
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        report.put("gpu", subprocess.run(query, capture_output=True, text=True, check=True, timeout=30).stdout.strip())
    except (OSError, subprocess.SubprocessError) as error:
        report.missing("gpu", error)
    import torch

    from mirage_sim.evaluation.doctor import commit, cpu

    report.put("cpu", cpu())
    manifest = BUNDLE / "manifest.json"
    packed = json.loads(manifest.read_text())["commit"] if manifest.exists() else None
    report.put("commit", commit())
    report.put("packed_at_commit", packed)
    report.put("cuda", torch.version.cuda)
    if part.device != "cpu":
        place = torch.zeros(1, device=part.device).device  # raises an error that names a missing device
        report.put("device", torch.cuda.get_device_name(place))
        report.put("gpu_gib_free", round(torch.cuda.mem_get_info(place)[0] / 2**30, 1))
    try:
        report.put("opengl", renderer())
    except (RuntimeError, subprocess.SubprocessError) as error:  # does not make the part fail
        report.missing("opengl", error)


def renderer() -> str:
    """Name of the renderer without a display, found in a new process, because a broken driver may crash or hang."""
    done = subprocess.run([sys.executable, "-c", RENDERER], capture_output=True, text=True, timeout=20)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"])[-1])
    return done.stdout.strip()


if __name__ == "__main__":
    main()
