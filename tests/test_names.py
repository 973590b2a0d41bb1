"""Names of tests are short."""

import ast
from pathlib import Path

TESTS = Path(__file__).parent
LONGEST = 60  # characters


def test_names_are_short() -> None:
    names = [
        f"{path.relative_to(TESTS)}: {node.name}"
        for path in sorted(TESTS.rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and len(node.name) > LONGEST
    ]
    assert names == []
