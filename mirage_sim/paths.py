"""The folders of the package and of the user: assets, configurations, cached files."""

import os
from pathlib import Path

PACKAGE = Path(__file__).parent
ASSETS = PACKAGE / "assets"
CONFIGS = PACKAGE / "configs"


def user_cache(name: str) -> Path:
    """Return the folder ``mirage_sim/NAME`` in the user's cache folder. What is in it can be deleted at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mirage_sim" / name
