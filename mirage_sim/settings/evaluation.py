"""Settings of ``mirage eval``."""

from dataclasses import MISSING, dataclass
from typing import ClassVar, Literal

from mirage_sim.settings.fields import Settings, setting
from mirage_sim.settings.rollout import WorldSettings

_CACHE = "Folder for true clips; null is mirage_sim/protocol in the user's cache folder."


@dataclass(frozen=True, kw_only=True)
class ProtocolSettings(WorldSettings):
    """An evaluation on held-out walks of a reference simulator; docs/protocol.md describes the protocols."""

    protocol: Literal["miniworld", "homes"] = setting("miniworld", "Simulator: MiniWorld, or furnished homes.")
    walks: Literal["quick", "full"] = setting(
        "quick",
        "How many walks. quick: 24 walks and 12 circuits; full: 192 and 48 in MiniWorld, 96 and 24 in homes.",
    )
    cache: str | None = setting(None, _CACHE)
    batch: int = setting(8, "Clips that are generated as one batch.", least=1)


@dataclass(frozen=True, kw_only=True)
class FidelitySettings(ProtocolSettings):
    """Compare generated with true frames along held-out walks and circuits."""

    example: ClassVar[str] = "mirage eval fidelity walks=quick output=outputs/a --json"

    variants: tuple[str, ...] | None = setting(
        None, "Some of latent_memory, no_memory, rgb_memory, true_depth; null is all, and the first frame repeated."
    )
    output: str | None = setting(
        None, "Folder for fidelity.json, images, videos and partial results; null writes nothing."
    )


@dataclass(frozen=True, kw_only=True)
class RevisitSettings(ProtocolSettings):
    """Compare generated with true frames on circuits that leave a place and come back to it: A, B, A, B."""

    example: ClassVar[str] = "mirage eval revisit --json"

    variants: tuple[str, ...] | None = setting(
        None, "Some of latent_memory, no_memory, rgb_memory, true_depth; null is all."
    )
    output: str | None = setting(
        None, "Folder for revisit.json, images, a video and partial results; null writes nothing."
    )


@dataclass(frozen=True, kw_only=True)
class CollisionSettings(ProtocolSettings):
    """Measure whether the memory blocks motions where the simulator does: precision and recall in remembered space."""

    example: ClassVar[str] = "mirage eval collision --json"

    variants: tuple[str, ...] | None = setting(
        None, "Some of latent_memory (depth that the world estimates), true_depth; null is both."
    )
    output: str | None = setting(None, "Folder for collision.json; null writes nothing.")
    recording: str | None = setting(
        None,
        "A clip of mirage record or a folder of clips: worlds made from them are compared with the simulator that was "
        "recorded, instead of generated worlds; protocol, walks and variants are not used then.",
    )


@dataclass(frozen=True, kw_only=True)
class ForkSettings(WorldSettings):
    """An evaluation on action sequences that are played from one state, in the learned world and in a simulator."""

    protocol: Literal["miniworld", "homes"] = setting("miniworld", "Simulator: MiniWorld, or furnished homes.")
    runs: Literal["quick", "full"] = setting("quick", "How many scenes. quick: 12; full: all of the manifest.")
    scenes: int | None = setting(None, "Number of scenes instead, the first of the manifest.", least=1)


@dataclass(frozen=True, kw_only=True)
class CounterfactualSettings(ForkSettings):
    """Measure whether the world does what the actions say: eight action sequences from one state, in forks."""

    example: ClassVar[str] = "mirage eval counterfactual --json"

    output: str | None = setting(
        None, "Folder for counterfactual.json and a contact sheet of each scene; null writes nothing."
    )


@dataclass(frozen=True, kw_only=True)
class CalibrationSettings(ForkSettings):
    """Measure whether the remembered mask predicts which pixels differ from the true frame."""

    example: ClassVar[str] = "mirage eval calibration --json"

    output: str | None = setting(None, "Folder for calibration.json; null writes nothing.")


@dataclass(frozen=True, kw_only=True)
class PhotosSettings(WorldSettings):
    """Evaluate on real images: the codec on nine photographs, the world on two stereo pairs."""

    example: ClassVar[str] = "mirage eval photos --json"

    source: str | None = setting(
        None, "Folder with the images of Debian's package opencv-doc; null is where the package installs them."
    )
    output: str | None = setting(None, "Folder for photos.json and an image of each pair; null writes nothing.")


@dataclass(frozen=True, kw_only=True)
class CompareSettings(Settings):
    """Show the paired differences between two runs of an evaluation."""

    example: ClassVar[str] = "mirage eval compare a.json b.json"
    positional: ClassVar[tuple[str, ...]] = ("first", "second")

    first: str = setting(MISSING, "JSON file of the first run.")
    second: str = setting(MISSING, "JSON file of the second run.")


@dataclass(frozen=True, kw_only=True)
class ReportSettings(Settings):
    """Write one HTML page with the metrics, plots, videos and contact sheets of a run."""

    example: ClassVar[str] = "mirage eval report outputs/a"
    positional: ClassVar[tuple[str, ...]] = ("folder",)

    folder: str = setting(MISSING, "Output folder of the run.")
