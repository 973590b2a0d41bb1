"""Names of tests are short, and no two tests have the same name."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
LONGEST = 60  # characters


def files_by_name() -> dict[str, list[str]]:
    """Return for each name of a test the files that define it."""
    files = defaultdict(list)
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                files[node.name].append(str(path.relative_to(TESTS)))
    return files


@pytest.mark.xfail(reason="some names are still longer")
def test_names_are_short() -> None:
    assert {name: files for name, files in files_by_name().items() if len(name) > LONGEST} == {}


@pytest.mark.xfail(reason="some names occur in several files")
def test_names_are_unique() -> None:
    assert {name: files for name, files in files_by_name().items() if len(files) > 1} == {}
