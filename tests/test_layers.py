"""Imports point left only: a layer imports the layers before it and no layer after it."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "mirage_sim"
LAYERS = (  # from left to right
    "ambient paths io settings geometry protocols memory models world data build envs training evaluation agents "
    "viewer ros cli"
).split()


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_layers(source: str) -> set[str]:
    """Return the layers that the source imports, lazily or not, except imports for type checkers only.

    The folder ``benchmarks`` counts as a layer too. It is not part of the wheel, so the package may not import it.
    """
    tree = ast.parse(source)
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import: {ast.unparse(node)}"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    layers = {name.split(".")[1] for name in names if name.startswith("mirage_sim.")}
    return layers | {"benchmarks"} & {name.split(".")[0] for name in names}


# rglob does not follow the symlink of the environments
FILES = sorted(path for path in {*PACKAGE.rglob("*.py"), *(PACKAGE / "envs").rglob("*.py")} if path.parent != PACKAGE)
FILES += sorted(path for path in PACKAGE.glob("*.py") if path.stem != "__init__")


def test_the_package_was_found() -> None:
    assert {"geometry", "world", "envs", "build", "cli"} <= {layer_of(path) for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_left(path: Path) -> None:
    layer = layer_of(path)
    assert layer in LAYERS, f"{layer}: expected a layer that CONTRIBUTING.md lists"
    allowed = set(LAYERS[: LAYERS.index(layer) + 1])
    wrong = imported_layers(path.read_text(encoding="utf-8")) & {*LAYERS, "benchmarks"} - allowed
    assert not wrong, f"{layer} may import {sorted(allowed)}, but imports {sorted(wrong)}"


def test_wrong_imports_are_seen() -> None:
    assert imported_layers("def f():\n    from mirage_sim.world import World") == {"world"}
    assert imported_layers("import mirage_sim.ros.node") == {"ros"}
    assert imported_layers("from mirage_sim import cli") == {"cli"}
    assert imported_layers("from benchmarks.scenes import hall") == {"benchmarks"}
    assert (
        imported_layers("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from mirage_sim.cli import x")
        == set()
    )


@pytest.mark.parametrize("folder", sorted({path.parent for path in FILES}), ids=lambda path: path.name)
def test_every_folder_of_code_is_a_package(folder: Path) -> None:
    """Wheels leave out folders without ``__init__.py``."""
    assert (folder / "__init__.py").exists()


def test_test_folders_mirror_packages() -> None:
    tests = Path(__file__).parent
    folders = {path.parent.relative_to(tests) for path in tests.rglob("test_*.py")} - {Path(".")}
    assert not [folder for folder in folders if not (PACKAGE / folder).is_dir() and folder != Path("benchmarks")]
