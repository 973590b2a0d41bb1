"""Settings of ``mirage record`` and ``mirage prepare``."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from mirage_sim.settings.fields import Settings, setting


@dataclass(frozen=True, kw_only=True)
class RecordSettings(Settings):
    """Record training walks in a reference simulator: frames, depth, cameras and commands.

    Walks that exist in the output folder are skipped.
    """

    example: ClassVar[str] = "mirage record simulator=homes walks=1000 output=data/clips/homes"

    simulator: Literal["miniworld", "homes"] = setting(
        "miniworld", "Simulator to walk in; miniworld needs the extra twin, homes the extra homes."
    )
    output: str = setting("data/clips", "Folder for the walks, ENVIRONMENT-SEED.safetensors.")
    walks: int = setting(1000, "Number of walks, spread over the simulator's training environments.", least=1)
    frames: int = setting(40, "Frames per walk.", least=2)
    first_seed: int = setting(0, "Seed of the first walk; later walks count up. Evaluation seeds are refused.", least=0)
    robot_share: float = setting(
        0.0,
        "Share of the walks with a robot's camera: 0.3 to 1.5 m high, field of view 50 to 75 degrees, pitched by up "
        "to 10 degrees.",
        least=0,
        most=1,
    )
    workers: int = setting(1, "Processes that render.", least=1)


@dataclass(frozen=True, kw_only=True)
class VideoSettings(Settings):
    """Cut videos with cameras and depth into clips of one size, rate and length; docs/training.md has the layouts."""

    layout: ClassVar[str]

    source: str = setting("data/films", "Folder with the videos.")
    output: str = setting("data/clips", "Folder for the clips; clips that exist are kept.")
    size: tuple[int, int] = setting(
        (704, 1280), "Height and width in pixels, those of the world to train; images are cropped and resized.", least=2
    )
    fps: float = setting(16.0, "Frames per second.", above=0)
    frames: int = setting(81, "Frames per clip; a remainder at the end of a video is dropped.", least=2)


@dataclass(frozen=True, kw_only=True)
class VipeSettings(VideoSettings):
    """Cut videos with the output of ViPE into training clips."""

    example: ClassVar[str] = "mirage prepare vipe source=data/films output=data/clips"
    layout: ClassVar[str] = "vipe"


@dataclass(frozen=True, kw_only=True)
class RealEstateSettings(VideoSettings):
    """Cut videos in the layout of RealEstate10K into training clips."""

    example: ClassVar[str] = "mirage prepare realestate10k source=data/re10k output=data/clips"
    layout: ClassVar[str] = "realestate10k"


@dataclass(frozen=True, kw_only=True)
class ClipsSettings(VideoSettings):
    """Cut recorded walks into training clips of another size, rate or length."""

    example: ClassVar[str] = "mirage prepare clips source=data/miniworld output=data/small 'size=[64,96]' frames=49"
    layout: ClassVar[str] = "clips"


@dataclass(frozen=True, kw_only=True)
class LerobotSettings(VideoSettings):
    """Cut the episodes of a LeRobot data set with depth and poses, such as a rollout's, into training clips."""

    example: ClassVar[str] = "mirage prepare lerobot source=data/lerobot/rollout-v0 output=data/clips fps=10"
    layout: ClassVar[str] = "lerobot"


@dataclass(frozen=True, kw_only=True)
class PhotographsSettings(Settings):
    """Crop photographs of Debian's wallpaper packages to 96 x 128 pixels, for training a codec."""

    example: ClassVar[str] = "mirage prepare photographs source=data/debian output=data/photographs"

    source: str = setting("data/debian", "Folder with the packages (.deb) or their contents.")
    output: str = setting(
        "data/photographs", "Folder for photographs.safetensors, and photographs.json with authors and licences."
    )
    images: int = setting(1600, "Number of crops, of 36864 bytes each.", least=1)


@dataclass(frozen=True, kw_only=True)
class FurnitureSettings(Settings):
    """Convert the models of Debian's package sweethome3d-furniture for the simulator of homes.

    The result goes to the user's cache folder.
    """

    example: ClassVar[str] = "mirage prepare furniture"

    source: str | None = setting(
        None, "File sweethome3d-furniture_*.deb, or a folder with .sh3f files; null downloads it with apt-get (120 MB)."
    )
