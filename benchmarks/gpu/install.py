"""Installs the packages that this machine lacks from the bundle into a temporary folder, without a network."""

import hashlib
import importlib.metadata
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

from report import Part

BUNDLE = Path(__file__).parent / "bundle"


def main() -> None:
    """Check the bundle against its manifest, and install."""
    part = Part("install", __doc__)
    manifest = BUNDLE / "manifest.json"
    if not manifest.exists():
        part.report.missing("bundle", f"no {manifest.name}: pack.py has not run, so missing packages are not installed")
        return
    for name, facts in json.loads(manifest.read_text())["files"].items():
        if hashlib.sha256((BUNDLE / name).read_bytes()).hexdigest() != facts["sha256"]:
            sys.exit(f"{name}: differs from its hash in {manifest.name}")
    missing = [wheel for wheel in sorted((BUNDLE / "wheels").glob("*.whl")) if not installed(wheel)]
    part.report.put("wheels", [wheel.name for wheel in missing])
    if missing:
        options = ["--no-index", "--no-deps", "--no-compile", "--no-cache-dir", "--target", part.work / "site"]
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *options, *missing], check=True)
    for package in sorted((BUNDLE / "site").glob("*")):
        if importlib.util.find_spec(package.name) is None:
            shutil.copytree(package, part.work / "site" / package.name)


def installed(wheel: Path) -> bool:
    """Whether the machine has this library, in any version."""
    try:
        importlib.metadata.version(wheel.name.split("-")[0])
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


if __name__ == "__main__":
    main()
