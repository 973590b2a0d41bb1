"""Progress of a recipe in one JSON file, which every change replaces atomically."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mirage_sim.io import save_json


class RecipeState:
    """The file ``recipe.json`` of an output folder.

    Args:
        output: output folder, created if missing.
        settings: settings of the run. An existing file must have the same ones.
        about: further entries of a new file.

    Raises:
        ValueError: if the folder holds other files, a damaged file, or a run with other settings. Nothing has changed
            then.
    """

    def __init__(self, output: Path, settings: Mapping[str, Any], about: Mapping[str, Any]):
        self.path = output / "recipe.json"
        settings = json.loads(json.dumps(settings))
        if self.path.exists():
            self.content = self._read()
            stored = self.content["settings"]
            other = sorted(key for key in settings.keys() | stored.keys() if settings.get(key) != stored.get(key))
            if other:
                raise ValueError(f"output: expected the settings in {self.path}, got another {other[0]}")
            return
        if output.exists() and (found := sorted(path.name for path in output.iterdir())):
            raise ValueError(f"output: expected a new folder or one of this recipe, got {output}, which has {found[0]}")
        self.content = {"settings": settings, **about, "parts": {}}
        output.mkdir(parents=True, exist_ok=True)
        self._write()

    def part(self, name: str) -> dict[str, Any]:
        """Return the values of a part of the run; empty before it begins."""
        return dict(self.content["parts"].get(name, {}))

    def update(self, name: str, **values: Any) -> None:
        """Set values of a part, and write the file."""
        self.content["parts"][name] = self.part(name) | values
        self._write()

    @property
    def spent(self) -> float:
        """Seconds that all parts have taken so far."""
        return sum(float(part.get("seconds", 0.0)) for part in self.content["parts"].values())

    def _read(self) -> dict[str, Any]:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"{self.path}: expected the state of a recipe in JSON format: {error}") from error
        kinds = [isinstance(content, dict) and isinstance(content.get(key), dict) for key in ("settings", "parts")]
        if not all(kinds) or not all(isinstance(part, dict) for part in content["parts"].values()):
            raise ValueError(f"{self.path}: expected the state of a recipe, with settings and parts")
        return dict(content)

    def _write(self) -> None:
        save_json(self.path, self.content)
