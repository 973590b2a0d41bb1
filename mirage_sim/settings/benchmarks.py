"""Settings of ``mirage bench``."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from mirage_sim.settings.fields import Settings, setting
from mirage_sim.settings.recordings import RecordingsBenchSettings
from mirage_sim.settings.rollout import WorldSettings


@dataclass(frozen=True, kw_only=True)
class StepBenchSettings(WorldSettings):
    """Measure steps per second of the environment, and where the time goes."""

    example: ClassVar[str] = "mirage bench step --json"

    steps: int = setting(200, "Steps to time.", least=1)
    rgb_steps: int = setting(40, "Steps to time with latent and RGB memory in turns.", least=1)
    seed: int = setting(0, "Seed of the episode.", least=0)


@dataclass(frozen=True, kw_only=True)
class VectorBenchSettings(WorldSettings):
    """Compare several worlds generated as one batch with a single environment."""

    example: ClassVar[str] = "mirage bench vector --json"

    worlds: int = setting(8, "Worlds in the batch.", least=1)
    steps: int = setting(40, "Steps to time.", least=1)
    seed: int = setting(0, "Seed of the first episode.", least=0)


@dataclass(frozen=True, kw_only=True)
class RosBenchSettings(Settings):
    """Measure the ROS 2 node over the middleware, with the embedded world; about three minutes."""

    example: ClassVar[str] = "mirage bench ros --json"

    steps: int = setting(
        200, "Steps compared with the plain environment in lockstep, and images timed in real time.", least=1
    )
    frames: int = setting(200, "Images of 640 x 480 published to a reliable and a best-effort subscriber.", least=1)
    seconds: float = setting(60.0, "Seconds at full rate while memory is measured.", above=0)
    shadow_images: int = setting(60, "Images of a walk that the node observes; each fifth is held out.", least=5)
    seed: int = setting(0, "Seed of the episode.", least=0)


@dataclass(frozen=True, kw_only=True)
class LearnBenchSettings(WorldSettings):
    """Train PPO (stable-baselines3) to reach a goal that is visible in the frames, and compare it with chance."""

    example: ClassVar[str] = "mirage bench learn --json"

    steps: int = setting(6144, "Steps of the world per training.", least=1)
    seeds: int = setting(2, "Independent trainings.", least=1)
    episodes: int = setting(32, "Test episodes per policy, from other start images and goals.", least=1)
    max_episode_steps: int = setting(40, "Maximum steps of an episode.", least=1)
    worlds: int = setting(8, "Worlds generated as one batch.", least=1)
    seed: int = setting(0, "Seed of the first training; later trainings count up.", least=0)
    output: str | None = setting(
        None, "Folder for the policies, policy_SEED.zip, which mirage rollout runs; null writes nothing."
    )


@dataclass(frozen=True, kw_only=True)
class ReadoutBenchSettings(Settings):
    """Compare the read-out of the memory with slow reference implementations: same bits, and speed."""

    example: ClassVar[str] = "mirage bench readout --json"

    threads: tuple[int, ...] = setting((1, 2, 4), "Thread counts that must give the same bits.", least=1)


@dataclass(frozen=True, kw_only=True)
class GrowthBenchSettings(Settings):
    """Write frames of a circuit to a memory again and again: memory and time per step; takes minutes."""

    example: ClassVar[str] = "mirage bench growth --json"

    cameras: int = setting(250, "Cameras of the circuit.", least=1)
    rounds: int = setting(40, "Rounds.", least=2)


@dataclass(frozen=True, kw_only=True)
class ForkBenchSettings(Settings):
    """Fork a large memory many times and write a frame to each fork; needs about 2 GiB."""

    example: ClassVar[str] = "mirage bench fork --json"

    points: int = setting(3_000_000, "Points of the memory.", least=1)
    forks: int = setting(1000, "Number of forks.", least=1)


@dataclass(frozen=True, kw_only=True)
class RetrievalBenchSettings(Settings):
    """Time the choice of reference frames by voxel overlap against Python sets; frames have 50,400 points."""

    example: ClassVar[str] = "mirage bench retrieval --json"

    frames: int = setting(64, "Frames to choose from.", least=1)
    repeats: int = setting(12, "Repetitions of each timing.", least=1)


@dataclass(frozen=True, kw_only=True)
class BytesBenchSettings(WorldSettings):
    """Measure the size of compact points, and their effect on the revisit circuits of the embedded world."""

    example: ClassVar[str] = "mirage bench bytes --json"

    frames: int = setting(8, "Frames to remember at full size.", least=1)
    walks: Literal["quick", "full"] = setting("quick", "quick: 12 circuits; full: 48.")
    cache: str | None = setting(None, "Folder for true clips; null is mirage_sim/protocol in the user's cache folder.")
    batch: int = setting(8, "Clips that are generated as one batch.", least=1)


@dataclass(frozen=True, kw_only=True)
class ConditioningBenchSettings(Settings):
    """Compare the cost of conditioning from latent and from RGB points with the real codec's architecture."""

    example: ClassVar[str] = "mirage bench conditioning --json"

    size: tuple[int, int] = setting(
        (704, 1280), "Height and width in pixels, multiples of 16; 704 x 1280 needs some GiB.", least=16
    )
    frames: int = setting(2, "Frames to remember.", least=1)


@dataclass(frozen=True, kw_only=True)
class RolloutBenchSettings(Settings):
    """Generate the same episodes in one process, with Ray workers, and with a worker that is killed."""

    example: ClassVar[str] = "mirage bench rollout --json"

    episodes: int = setting(24, "Number of episodes.", least=1)
    steps: int = setting(20, "Steps of an episode.", least=1)
    worlds: int = setting(2, "Episodes generated as one batch.", least=1)
    num_workers: int = setting(2, "Ray workers.", least=1)
    seed: int = setting(0, "Seed of the first episode.", least=0)


@dataclass(frozen=True, kw_only=True)
class BackboneBenchSettings(Settings):
    """Check the real backbone without its weights: sizes, names, exactness, training and a walk at toy size."""

    example: ClassVar[str] = "mirage bench backbone --json"

    vae: Literal["encode", "decode"] | None = setting(
        "encode",
        "Codec at full size. encode: 5 frames of 704 x 1280, minutes on two cores; decode: both ways, half an hour.",
    )


@dataclass(frozen=True, kw_only=True)
class SimulatorsBenchSettings(Settings):
    """Measure the reference simulators: images with depth per second at 96 x 128, seconds to build a home."""

    example: ClassVar[str] = "mirage bench simulators --json"

    homes: str = setting("seen", "Environment of homes; all but procedural need mirage prepare furniture.")
    miniworld: str = setting("RoomObjects", "Environment of MiniWorld.")
    scenes: int = setting(8, "Scenes to visit.", least=1)
    frames: int = setting(100, "Images of each scene.", least=1)


@dataclass(frozen=True, kw_only=True)
class AllBenchSettings(Settings):
    """Run the benchmarks of speed and scale, each in its own process, and print one table with the targets."""

    example: ClassVar[str] = "mirage bench all"

    benchmarks: tuple[str, ...] | None = setting(None, "Some of them, such as [readout,fork]; null is all.")


BENCHMARKS: dict[str, type[Settings]] = {
    "step": StepBenchSettings,
    "vector": VectorBenchSettings,
    "ros": RosBenchSettings,
    "learn": LearnBenchSettings,
    "readout": ReadoutBenchSettings,
    "growth": GrowthBenchSettings,
    "fork": ForkBenchSettings,
    "retrieval": RetrievalBenchSettings,
    "bytes": BytesBenchSettings,
    "conditioning": ConditioningBenchSettings,
    "rollout": RolloutBenchSettings,
    "backbone": BackboneBenchSettings,
    "simulators": SimulatorsBenchSettings,
    "recordings": RecordingsBenchSettings,
    "all": AllBenchSettings,
}
