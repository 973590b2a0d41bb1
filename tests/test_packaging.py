import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import mirage_sim

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="needs the checkout")
LEFT_OUT = (
    ".git",
    ".venv",
    "outputs",
    "build",
    "dist",
    "install",
    "log",
    "data",
    "checkpoints",
    "*.egg-info",
    "__pycache__",
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Build a wheel from a copy of the checkout, which stays clean."""
    folder = tmp_path_factory.mktemp("wheel")
    top = {name for pattern in LEFT_OUT for name in (path.name for path in ROOT.glob(pattern))}
    shutil.copytree(
        ROOT,
        folder / "source",
        symlinks=True,
        ignore=lambda at, names: top & set(names) if Path(at) == ROOT else {"__pycache__"} & set(names),
    )
    options = ["--no-build-isolation", "--no-deps", "--disable-pip-version-check", "-q", "-w", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(folder / "source")], check=True)
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def files(folder: str, pattern: str) -> set[str]:
    """Return the paths that files of a top-level folder of the checkout have in a wheel."""
    return {f"mirage_sim/{path.relative_to(ROOT)}" for path in (ROOT / folder).rglob(pattern)}


def test_wheel_is_complete(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    code = {str(path.relative_to(ROOT)) for path in (ROOT / "mirage_sim").rglob("*.py")}
    assets = {str(path.relative_to(ROOT)) for path in (ROOT / "mirage_sim" / "assets").rglob("*") if path.is_file()}
    for expected in (code, assets, files("envs", "*.py"), files("configs", "*.yaml")):
        assert expected
        assert not expected - names
    assert any(name.endswith("data/share/ament_index/resource_index/packages/mirage_sim") for name in names)
    assert any(name.endswith("data/share/mirage_sim/package.xml") for name in names)
    shared = {name.partition("data/share/mirage_sim/")[2] for name in names}
    assert {"launch/world.launch.py", "configs/fastdds.xml"} <= shared
    assert {f"configs/ros/{path.name}" for path in (ROOT / "configs" / "ros").iterdir()} <= shared
    assert {"mirage_sim/configs/fastdds.xml", "mirage_sim/configs/ros/world.rviz"} <= names
    assert not [
        name for name in names if name.startswith(("tests", "benchmarks", "envs", "configs")) or "partial" in name
    ]


def test_wheel_has_metadata(wheel: zipfile.ZipFile) -> None:
    (path,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = wheel.read(path).decode()
    assert f"\nVersion: {mirage_sim.__version__}\n" in metadata
    assert re.search(r"\nRequires-Python: (<3\.14, ?>=3\.10|>=3\.10, ?<3\.14)\n", metadata)
    assert "\nRequires-Dist: torch<3,>=2.11\n" in metadata
    extras = "ros twin homes train data learn ray report perceptual wan viewer dev test"
    for extra in extras.split():
        assert f"\nProvides-Extra: {extra}\n" in metadata
    (path,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    commands = wheel.read(path).decode()
    assert "mirage = mirage_sim.cli:main" in commands
    assert "mirage_world = mirage_sim.ros.__main__:world" in commands
    assert "mirage_policy = mirage_sim.ros.__main__:policy" in commands


def test_ros_manifest_is_valid() -> None:
    package_module = pytest.importorskip("catkin_pkg.package", reason="catkin_pkg is not installed")
    warnings: list[str] = []
    package = package_module.parse_package(str(ROOT / "package.xml"), warnings=warnings)
    package.validate(warnings=warnings)
    assert not warnings
    assert package.name == "mirage_sim"
    assert package.version == mirage_sim.__version__
    assert package.get_build_type() == "ament_python"
    assert [license for license in package.licenses] == ["Apache-2.0"]
    assert (ROOT / "resource" / package.name).exists()
    assert (ROOT / "LICENSE").read_text().count("Apache License") >= 1


def test_dependencies_are_declared_once() -> None:
    assert not re.search(r"^dependencies|^\[project", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text()
    assert "==" not in makefile.replace("torch==[", ""), "the Makefile reads versions from setup.py"
    wanted = subprocess.run(["make", "-n", "-C", str(ROOT), "VENV=/nowhere", "demo"], capture_output=True, text=True)
    assert "pip --disable-pip-version-check install  torch==2.13.0\n" in wanted.stdout


def test_index_of_torch_can_be_chosen() -> None:
    command = ["make", "-n", "-C", str(ROOT), "VENV=/nowhere", "TORCH_INDEX=https://example.invalid/cpu", "demo"]
    wanted = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "install --index-url https://example.invalid/cpu torch==2.13.0\n" in wanted


def test_symlinks_point_to_top_level_folders() -> None:
    for name in ("envs", "configs"):
        assert (ROOT / "mirage_sim" / name).resolve() == ROOT / name


def test_changelog_has_this_version() -> None:
    assert f"## {mirage_sim.__version__}" in (ROOT / "CHANGELOG.md").read_text()
