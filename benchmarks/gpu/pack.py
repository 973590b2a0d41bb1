"""Packs benchmarks/gpu/bundle, which run.sh needs on a machine without a network. Run it on one with a network.

Wheels for CPython 3.12 (wheels.txt), loaders of OpenGL (Debian packages), textures of MiniWorld, prepared furniture
from the user's cache, and a manifest with sizes and hashes. Missing parts are left out with a warning, except
wheels. The bundle is written atomically.
"""

import hashlib
import importlib.util
import json
import logging
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2

from mirage_sim.data.simulators.homes.scene import TEXTURE_SIZE
from mirage_sim.evaluation.doctor import commit
from mirage_sim.paths import user_cache

HERE = Path(__file__).parent
BUNDLE = HERE / "bundle"
LIMIT = 30 * 10**6  # bytes
# oldest first; pip takes a wheel only for a platform that is named
PLATFORMS = ("manylinux1", "manylinux2014", "manylinux_2_17", "manylinux_2_24", "manylinux_2_27", "manylinux_2_28")
SOURCE_ONLY = "antlr4-python3-runtime"  # pure Python, published without a wheel
LOADERS = ("libegl1", "libglvnd0", "libopengl0")
FURNITURE = "furniture"

logger = logging.getLogger("pack")


def main() -> int:
    """Pack the bundle, and print a summary."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    partial = HERE / "bundle.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        wheels(partial / "wheels")
        loaders(partial / "gl")
        textures(partial / "site" / "miniworld")
        furniture(partial / "cache" / "mirage_sim" / FURNITURE)
        manifest = describe(partial)
        (partial / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
        shutil.rmtree(BUNDLE, ignore_errors=True)
        partial.replace(BUNDLE)
    except (ValueError, OSError, subprocess.CalledProcessError) as error:
        print(f"pack: error: {error}", file=sys.stderr)
        return 2
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    print(f"{BUNDLE}: {len(manifest['files'])} files, {manifest['bytes'] / 1e6:.1f} MB")
    return 0


def wheels(folder: Path) -> None:
    """Download the wheels of wheels.txt; build the one that is published as source alone."""
    lines = [line.partition("#")[0].strip() for line in (HERE / "wheels.txt").read_text().splitlines()]
    wanted = [line for line in lines if line]
    ready = [line for line in wanted if not line.startswith(SOURCE_ONLY)]
    platforms = [option for name in PLATFORMS for option in ("--platform", f"{name}_x86_64")]
    target = ["--only-binary=:all:", "--python-version=3.12", "--implementation=cp", *platforms]
    pip = [sys.executable, "-m", "pip"]
    subprocess.run([*pip, "download", "--quiet", "--no-deps", *target, "--dest", folder, *ready], check=True)
    built = [line for line in wanted if line.startswith(SOURCE_ONLY)]
    subprocess.run([*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, *built], check=True)
    found = len(list(folder.glob("*.whl")))
    if found != len(wanted):
        raise ValueError(f"wheels: expected {len(wanted)}, one for each line of wheels.txt, got {found}")


def loaders(folder: Path) -> None:
    """The libraries that programs find OpenGL's driver with, under the names that programs ask for."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        logger.warning("gl: left out, there is no apt-get here")
        return
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(["apt-get", "download", "-qq", *LOADERS], cwd=scratch, check=True)
        for package in sorted(Path(scratch).glob("*.deb")):
            subprocess.run(["dpkg-deb", "-x", package, f"{scratch}/unpacked"], check=True)
        for link in sorted(Path(scratch, "unpacked", "usr", "lib", "x86_64-linux-gnu").glob("lib*.so.?")):
            shutil.copyfile(link, folder / link.name)  # copies the target of the link


def textures(folder: Path) -> None:
    """MiniWorld's textures, which homes are made with, under the name of its package; all of that is too large.

    They are stored at the size that homes give them, so that these are the same homes.
    """
    package = importlib.util.find_spec("miniworld")
    if package is None or package.origin is None:
        logger.warning("textures: left out, MiniWorld is not installed here")
        return
    (folder / "textures").mkdir(parents=True)
    (folder / "__init__.py").touch()
    for path in sorted((Path(package.origin).parent / "textures").glob("*.png")):
        image = cv2.resize(cv2.imread(str(path)), (TEXTURE_SIZE, TEXTURE_SIZE), interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(folder / "textures" / path.name), image)


def furniture(folder: Path) -> None:
    """What ``mirage prepare furniture`` left in the user's cache."""
    prepared = user_cache(FURNITURE)
    if not prepared.is_dir() or not any(prepared.iterdir()):
        logger.warning("furniture: left out, there is none in %s (mirage prepare furniture)", prepared)
        return
    shutil.copytree(prepared, folder, ignore=shutil.ignore_patterns("*partial*"))


def describe(folder: Path) -> dict[str, object]:
    """The manifest: commit, and size and SHA-256 of every file.

    Raises:
        ValueError: if the files are too large together.
    """
    files = {
        str(path.relative_to(folder)): {
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    whole = sum(int(facts["bytes"]) for facts in files.values())
    if whole > LIMIT:
        largest = max(files, key=lambda name: files[name]["bytes"])
        raise ValueError(f"bundle: expected at most {LIMIT} bytes, got {whole}; the largest file is {largest}")
    return {"commit": commit(), "bytes": whole, "files": files}


if __name__ == "__main__":
    sys.exit(main())
