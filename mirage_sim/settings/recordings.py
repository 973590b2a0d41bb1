"""Settings of ``mirage recording``, ``mirage eval recording`` and ``mirage bench recordings``."""

from dataclasses import MISSING, dataclass
from typing import ClassVar

from mirage_sim.settings.fields import Settings, setting
from mirage_sim.settings.rollout import WorldSettings


@dataclass(frozen=True, kw_only=True)
class TopicsSettings(Settings):
    """Topics of a bag to read instead of those found by type and name."""

    image: str | None = setting(None, "Topic with images, raw or compressed.")
    camera_info: str | None = setting(None, "Topic with the intrinsics of these images.")
    depth: str | None = setting(None, "Topic with depth images.")
    odometry: str | None = setting(None, "Topic with odometry, instead of poses from /tf.")

    def chosen(self) -> dict[str, str]:
        """Return the topics that the user named, by role."""
        return {role: topic for role, topic in vars(self).items() if topic}


@dataclass(frozen=True, kw_only=True)
class RecordingInfoSettings(Settings):
    """Show what is in a recording of a place: a bag, a TUM folder, an export of a phone; docs/recordings.md."""

    example: ClassVar[str] = "mirage recording info data/recording output=outputs/recording"
    positional: ClassVar[tuple[str, ...]] = ("source",)

    source: str = setting(MISSING, "File or folder of the recording.")
    output: str | None = setting(
        None, "Folder for map.png, the path from above, and sheet.png, images and depth over time; null writes nothing."
    )
    topics: TopicsSettings = setting(TopicsSettings(), "")


@dataclass(frozen=True, kw_only=True)
class RecordingImportSettings(WorldSettings):
    """Turn a recording into a world that environments, rollouts and the ROS 2 node can start in."""

    example: ClassVar[str] = "mirage recording import data/recording output=lab.world"
    folders: ClassVar[tuple[str, ...]] = ()
    positional: ClassVar[tuple[str, ...]] = ("source",)

    source: str = setting(MISSING, "File or folder of the recording.")
    output: str = setting(MISSING, "File for the world; an existing one is replaced.")
    seed: int = setting(0, "Seed of everything that is generated.", least=0)
    topics: TopicsSettings = setting(TopicsSettings(), "")


@dataclass(frozen=True, kw_only=True)
class RecordingExportSettings(WorldSettings):
    """Write the memory of a saved world as a point cloud, and as a map that nav2_map_server loads."""

    example: ClassVar[str] = "mirage recording export lab.world points=lab.ply grid=lab"
    positional: ClassVar[tuple[str, ...]] = ("source",)

    source: str = setting(MISSING, "File of the saved world.")
    points: str | None = setting(None, "File for the coloured points (PLY); null writes none.")
    grid: str | None = setting(None, "Name of the map, which becomes NAME.pgm and NAME.yaml; null writes none.")
    resolution: float = setting(0.05, "Edge of a cell of the map in metres.", least=0.01, most=1.0)


@dataclass(frozen=True, kw_only=True)
class RecordingEvalSettings(WorldSettings):
    """Evaluate a world made from a recording on stretches of it that were held out."""

    example: ClassVar[str] = "mirage eval recording data/recording --json"
    positional: ClassVar[tuple[str, ...]] = ("source",)

    source: str = setting(MISSING, "A recording, or a folder of recordings.")
    output: str | None = setting(
        None, "Folder for recording.json and a contact sheet of each recording; null writes nothing."
    )


@dataclass(frozen=True, kw_only=True)
class RecordingsBenchSettings(Settings):
    """Measure how fast a recording is read, from its files to a world's image size, on one core."""

    example: ClassVar[str] = "mirage bench recordings source=data/recording --json"

    source: str = setting("data/recording", "File or folder of the recording.")
    size: tuple[int, int] = setting((96, 128), "Height and width of the images wanted, in pixels.", least=16)
