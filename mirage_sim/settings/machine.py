"""Settings of ``mirage doctor`` and ``mirage download``."""

from dataclasses import dataclass
from typing import ClassVar

from mirage_sim.settings.fields import Settings, setting


@dataclass(frozen=True, kw_only=True)
class DoctorSettings(Settings):
    """Show what this machine has, which worlds it can run, and what to install."""

    example: ClassVar[str] = "mirage doctor"

    wan5b: str | None = setting(
        None, "Folder with the weights of the real backbone; null is mirage_sim/wan5b in the user's cache folder."
    )


@dataclass(frozen=True, kw_only=True)
class DownloadSettings(Settings):
    """Download the public weights of the real backbone, Wan2.2-TI2V-5B, in diffusers' layout.

    Files that exist are kept.
    """

    example: ClassVar[str] = "mirage download wan5b folder=weights"

    folder: str | None = setting(None, "Folder for the weights; null is mirage_sim/wan5b in the user's cache folder.")
    repository: str = setting("Wan-AI/Wan2.2-TI2V-5B-Diffusers", "Repository on the Hugging Face hub.")
    revision: str = setting("main", "Branch, tag or commit of the repository.")
