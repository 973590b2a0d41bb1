"""Imports point left only: a room knows the rooms before it and none after it."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "mirage_sim"
ROOMS = (  # from left to right
    "ambient files geometry protocols memory models world data build envs training evaluation agents viewer ros cli"
).split()


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(source: str) -> set[str]:
    """Rooms that any statement of the source imports, lazily or not; imports for type checkers alone do not count."""
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
    rooms = {name.split(".")[1] for name in names if name.startswith("mirage_sim.")}
    return rooms | {"benchmarks"} & {name.split(".")[0] for name in names}


# rglob does not follow the symlink of the environments
FILES = sorted(path for path in {*PACKAGE.rglob("*.py"), *(PACKAGE / "envs").rglob("*.py")} if path.parent != PACKAGE)
FILES += sorted(path for path in PACKAGE.glob("*.py") if path.stem != "__init__")


def test_the_package_was_found() -> None:
    assert {"geometry", "world", "envs", "build", "cli"} <= {room_of(path) for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_left(path: Path) -> None:
    room = room_of(path)
    assert room in ROOMS, f"{room}: not a room of the house; see CONTRIBUTING.md"
    allowed = set(ROOMS[: ROOMS.index(room) + 1])
    wrong = imported_rooms(path.read_text(encoding="utf-8")) & {*ROOMS, "benchmarks"} - allowed
    assert not wrong, f"{room} may import {sorted(allowed)}, but imports {sorted(wrong)}"


def test_wrong_imports_are_seen() -> None:
    assert imported_rooms("def f():\n    from mirage_sim.world import World") == {"world"}
    assert imported_rooms("import mirage_sim.ros.node") == {"ros"}
    assert imported_rooms("from mirage_sim import cli") == {"cli"}
    assert imported_rooms("from benchmarks.scenes import hall") == {"benchmarks"}  # which a wheel does not have
    assert (
        imported_rooms("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from mirage_sim.cli import x") == set()
    )


@pytest.mark.parametrize("folder", sorted({path.parent for path in FILES}), ids=lambda path: path.name)
def test_every_folder_of_code_is_a_package(folder: Path) -> None:
    """Without it, wheels leave the folder out."""
    assert (folder / "__init__.py").exists()
