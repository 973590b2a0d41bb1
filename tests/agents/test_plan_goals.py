import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mirage_sim.agents.plan_goals import plan_goals
from mirage_sim.settings import PlanSettings


@pytest.fixture
def settings(toy_config: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    shared = {name: toy_config[name] for name in ("world", "memory", "latent")}
    return shared | {"episodes": 1, "steps": 2, "candidates": 30, "output": str(tmp_path / "plan")}


def test_plan_goals_writes_metrics_and_an_image(settings: dict[str, Any], tmp_path: Path) -> None:
    result = plan_goals(PlanSettings.read(settings))
    marks = json.loads((tmp_path / "plan/plan.json").read_text())["marks"]
    assert result["marks"] == marks and result["output"] == settings["output"]
    assert {"success", "spl", "ms_per_decision"} <= set(marks) and marks["episodes"] == 1
    assert 0 <= marks["spl"] <= marks["success"] <= 1 and 1 <= marks["steps"] <= 2
    assert min(Image.open(tmp_path / "plan/plan.png").size) > 700


def test_start_views_without_a_free_way_are_an_error(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^goal: expected a start view with 90 m of free way"):
        plan_goals(PlanSettings.read(settings | {"nearest": 90.0, "farthest": 99.0}))


def test_nearest_beyond_farthest_is_an_error(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^nearest: expected less than farthest=4, got 5"):
        PlanSettings.read(settings | {"nearest": 5.0})
