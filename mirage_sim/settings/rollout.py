"""Settings of worlds and of ``mirage rollout``."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from mirage_sim.settings.fields import Settings, group, setting

POLICIES = ("scripted", "random", "replay")
FORMATS = ("mp4", "npz", "minari", "lerobot", "mcap")


@dataclass(frozen=True, kw_only=True)
class WorldSettings(Settings):
    """A world model, as :func:`mirage_sim.build.instantiate` builds it from the node `world`."""

    world: dict[str, Any] = group("mini", "World to generate.")
    memory: dict[str, Any] = group("latent", "Spatial memory of the world.")
    latent: dict[str, Any]  # what the codec makes; the world's configuration sets it


@dataclass(frozen=True, kw_only=True)
class RolloutSettings(WorldSettings):
    """Walk an agent through a generated world and save what it saw.

    The output folder gets the episodes and metrics.json. If a rollout is killed, the same command continues it;
    format=mp4 starts again.
    """

    example: ClassVar[str] = "mirage rollout policy=scripted steps=200 seed=3"

    env: dict[str, Any] = group("default", "Arguments of the environment MirageWorld-v0, such as env.task=goal.")
    backend: dict[str, Any] = group("local", "Where the episodes are generated.")
    policy: str = setting(
        "scripted",
        "The agent. scripted looks around, walks to open space and returns; random draws actions; replay follows a "
        "recorded walk out and back; FILE.zip is a PPO of stable-baselines3, which needs the env.action_mode and "
        "env.task that it was trained with.",
    )
    trust_policy: bool = setting(
        False, "Load FILE.zip. It contains pickled objects, which can run any code of whoever made the file."
    )
    steps: int = setting(200, "Maximum steps of an episode; a replay takes as many as its walk.", least=1)
    episodes: int = setting(1, "Number of episodes; format=mp4 takes one.", least=1)
    worlds: int = setting(
        1, "Episodes generated as one batch, which is faster; the batch changes how frames are rounded.", least=1
    )
    seed: int = setting(0, "Seed of the first episode; later episodes count up.", least=0)
    start: int | str | None = setting(
        None,
        "Index of a built-in start image, or the path of a saved world, whose keyframes are the starts (mirage "
        "recording import); null lets the seed choose an image.",
    )
    image: str | None = setting(None, "Path of an image to start from instead.")
    fov_deg: float = setting(60.0, "Vertical field of view of that image, degrees.", above=0, most=179)
    walk: int | str = setting(
        0, "Walk for policy=replay: index of a shipped held-out walk, or the path of a recorded clip."
    )
    format: Literal["mp4", "npz", "minari", "lerobot", "mcap"] = setting(
        "mp4",
        "What is saved. mp4: a video, a contact sheet and a map; npz: one NumPy archive per episode; minari, lerobot: "
        "a data set of Minari or LeRobot, rollout-v0; mcap: one rosbag2 folder per episode. docs/cli.md lists the "
        "contents.",
    )
    video: bool = setting(
        True, "With format=lerobot, store images as videos (false: as PNG files, larger and exact, with depth in mm)."
    )
    output: str = setting("outputs/rollout", "Folder for the results.")
    bag: dict[str, Any] = setting(
        {"_target_": "mirage_sim.ros.bag.BagWriter", "camera_height": 1.5},
        "Writer of format=mcap; bag.camera_height is the height of the camera above base_link, metres.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.policy not in POLICIES and not self.policy.endswith(".zip"):
            raise ValueError(f"policy: expected one of {POLICIES} or a stable-baselines3 .zip, got {self.policy!r}")
        if isinstance(self.start, int) and self.start < 0:
            raise ValueError(f"start: expected an index of at least 0 or the path of a saved world, got {self.start}")
        if isinstance(self.start, str) and self.image is not None:
            raise ValueError(f"image, start: expected at most one of them, got {self.image} and {self.start}")
        if self.output in FORMATS:
            raise ValueError(f"output: expected a folder, got {self.output!r}; format={self.output} chooses the format")
        if self.format == "mp4" and self.episodes > 1:
            raise ValueError(f"episodes: expected 1 with format=mp4, got {self.episodes}")
        if self.policy == "scripted" and (mode := self.env["action_mode"]) != "twist":
            raise ValueError(f"env.action_mode: expected 'twist' with policy=scripted, got {mode!r}")


@dataclass(frozen=True, kw_only=True)
class PlanSettings(WorldSettings):
    """Plan to goals in a generated world, drive there, and draw the plan.

    The output folder gets plan.json and, of the first episode, plan.png: the map, the candidates of the first
    decision, the plan, the path that was driven, and the frames along it.
    """

    example: ClassVar[str] = "mirage plan episodes=8 output=outputs/plan --json"

    search: Literal["cem", "mppi"] = setting(
        "cem", "cem: the cross-entropy method; mppi: model-predictive path integral control."
    )
    horizon: int = setting(20, "Actions of a plan.", least=1, most=1000)
    candidates: int = setting(250, "Plans that are compared in each round.", least=25, most=100_000)
    rounds: int = setting(4, "Rounds of a decision.", least=1, most=100)
    episodes: int = setting(8, "Number of episodes.", least=1)
    steps: int = setting(100, "Maximum steps of an episode.", least=1)
    seed: int = setting(
        0, "Seed of the first episode; later ones count up, without those whose start view has no free way.", least=0
    )
    nearest: float = setting(1.0, "Least distance of a goal from the start, metres.", above=0, most=100)
    farthest: float = setting(4.0, "Greatest distance of a goal from the start, metres.", above=0, most=100)
    start: int | None = setting(None, "Index of a built-in start image; null lets the seed choose.", least=0)
    image: str | None = setting(None, "Path of an image to start from instead.")
    fov_deg: float = setting(60.0, "Vertical field of view of that image, degrees.", above=0, most=179)
    output: str = setting("outputs/plan", "Folder for the results.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.nearest < self.farthest:
            raise ValueError(f"nearest: expected less than farthest={self.farthest:g}, got {self.nearest:g}")
