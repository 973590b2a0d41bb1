"""What a run of a recipe has done so far: one JSON file, which every change replaces as a whole."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mirage_sim.io import save_json


class RecipeState:
    """The file ``recipe.json`` of an output folder.

    Args:
        output: the folder; it is made.
        settings: of the run. An existing file must have been begun with the same ones.
        about: what else a new file says.

    Raises:
        ValueError: if the folder holds something else, a damaged file, or a run with other settings; nothing has
            changed then.
    """

    def __init__(self, output: Path, settings: Mapping[str, Any], about: Mapping[str, Any]):
        self.path = output / "recipe.json"
        settings = json.loads(json.dumps(settings))
        if self.path.exists():
            self.content = self._read()
            begun = self.content["settings"]
            other = sorted(key for key in settings.keys() | begun.keys() if settings.get(key) != begun.get(key))
            if other:
                raise ValueError(f"output: expected the settings that {self.path} began with, got another {other[0]}")
            return
        if output.exists() and (found := sorted(path.name for path in output.iterdir())):
            raise ValueError(f"output: expected a new folder or one of this recipe, got {output} with {found[0]} in it")
        self.content = {"settings": settings, **about, "parts": {}}
        output.mkdir(parents=True, exist_ok=True)
        self._write()

    def part(self, name: str) -> dict[str, Any]:
        """What is known of a part of the run; empty before it begins."""
        return dict(self.content["parts"].get(name, {}))

    def update(self, name: str, **values: Any) -> None:
        """Keep these values of a part."""
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
