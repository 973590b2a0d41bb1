"""Settings of ``mirage train``: one stage of a world, or the recipe that trains all stages of the embedded world."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from mirage_sim.settings.fields import Settings, group, setting
from mirage_sim.settings.rollout import WorldSettings

_GAP = "Frames between the remembered and the generated frame."
_PRECISION = (
    "Arithmetic of the networks; auto is bfloat16 where the device computes with it. Learned weights are float32."
)


@dataclass(frozen=True, kw_only=True)
class StageSettings(Settings):
    """A stage of training."""

    name: str
    model: str
    steps: int
    learning_rate: float

    @property
    def options(self) -> dict[str, Any]:
        """Return the settings of the stage's loss: all but those of the training loop."""
        return {key: value for key, value in vars(self).items() if key not in StageSettings.__dataclass_fields__}


@dataclass(frozen=True, kw_only=True)
class CodecSettings(StageSettings):
    """Train the codec and the read-out aligner of the denoiser."""

    name: str = "codec"
    model: str = "mini"
    steps: int = setting(1800, "Training steps; the recipe trains by time instead.", least=1)
    learning_rate: float = setting(1e-3, "Learning rate at the start.", above=0)
    batch: int = setting(6, "Frames per step.", least=1)
    noise: float = setting(0.1, "Standard deviation of the noise on latents before decoding.", least=0)
    gap: int = setting(24, _GAP, least=1)
    photograph_share: float = setting(
        0.3, "Share of the batch that reconstructs photographs, if there are any.", least=0, most=1
    )
    precision: Literal["float32", "bfloat16", "auto"] = setting("float32", _PRECISION)


@dataclass(frozen=True, kw_only=True)
class DepthSettings(StageSettings):
    """Train the depth head."""

    name: str = "depth"
    model: str = "mini"
    steps: int = setting(5000, "Training steps; the recipe trains by time instead.", least=1)
    learning_rate: float = setting(8e-4, "Learning rate at the start.", above=0)
    batch: int = setting(16, "Frames per step.", least=1)
    drift: float = setting(0.05, "Log scale by which the whole remembered depth is off.", least=0)
    latent_noise: float = setting(0.25, "Noise on the latents that frames are decoded from.", least=0)
    gap: int = setting(24, _GAP, least=1)
    clean: float = setting(0.6, "Share of frames without that noise.", least=0, most=1)
    error: float = setting(0.02, "Log depth by which parts of the remembered depth are off.", least=0)
    precision: Literal["float32", "bfloat16", "auto"] = setting("float32", _PRECISION)


@dataclass(frozen=True, kw_only=True)
class DenoiserSettings(StageSettings):
    """Train the denoiser."""

    name: str = "denoiser"
    model: str = "mini"
    steps: int = setting(4000, "Training steps; the recipe trains by time instead.", least=1)
    learning_rate: float = setting(5e-4, "Learning rate at the start.", above=0)
    batch: int = setting(12, "Episodes that advance together.", least=1)
    rgb_share: float = setting(0.42, "Share of the batch that reads an RGB memory.", least=0, most=1)
    empty_share: float = setting(0.16, "Share of the batch that reads an empty memory.", least=0, most=1)
    steps_of_episode: tuple[int, int] = setting((14, 28), "Shortest and longest episode, steps.", least=1)
    latent_noise: float = setting(0.25, "Noise on the latents of true frames after the start.", least=0)
    self_rollout_fraction: float = setting(
        0.8, "Share of the batches that sample from pure noise and continue from the result.", least=0, most=1
    )
    texture: float = setting(13.0, "Weight of the texture loss.", least=0)
    precision: Literal["float32", "bfloat16", "auto"] = setting(
        "float32", f"{_PRECISION} bfloat16 takes two thirds of the time on processors that have it, far more on others."
    )


@dataclass(frozen=True, kw_only=True)
class DropSettings(Settings):
    """How often an input of the denoiser is left out."""

    text: float = setting(0.1, "Share of the samples without the prompt.", least=0, most=1)
    references: float = setting(0.1, "Share of the samples without reference frames.", least=0, most=1)
    preceding: float = setting(0.1, "Share of the samples without preceding frames.", least=0, most=1)


@dataclass(frozen=True, kw_only=True)
class BranchSettings(StageSettings):
    """Train the side branch of the real backbone, which itself does not change."""

    name: str = "branch"
    model: str = "wan5b"
    steps: int = setting(20000, "Training steps.", least=1)
    learning_rate: float = setting(1e-5, "Learning rate at the start.", above=0)
    precision: Literal["float32", "bfloat16"] = setting(
        "bfloat16", "Arithmetic of the networks; learned weights are float32."
    )
    gradient_accumulation_steps: int = setting(1, "Chunks per step and device.", least=1)
    gradient_checkpointing: bool = setting(
        True, "Compute blocks again for the gradients: saves most of the memory, takes a third more time."
    )
    shift: float = setting(5.0, "Shift of the noise levels; above 1 draws more of the high ones.", above=0)
    drop: DropSettings = setting(DropSettings(), "Inputs that are left out.")
    latents: str | None = setting(
        None, "Folder for encoded clips; null is mirage_sim/latents in the user's cache folder."
    )


@dataclass(frozen=True, kw_only=True)
class LoraSettings(BranchSettings):
    """Continue with the side branch, and train adapters of the backbone's attentions."""

    name: str = "lora"
    rank: int = setting(64, "Rank of the adapters.", least=1)


STAGES: dict[str, type[StageSettings]] = {
    "codec": CodecSettings,
    "depth": DepthSettings,
    "denoiser": DenoiserSettings,
    "branch": BranchSettings,
    "lora": LoraSettings,
}


@dataclass(frozen=True, kw_only=True)
class TrainSettings(WorldSettings):
    """Train one stage of a world, or all of the embedded world (`mirage train recipe=mini`).

    An interrupted run continues with the same command. Stages, data and results: docs/training.md.
    """

    example: ClassVar[str] = "mirage train recipe=mini budget=2h"

    stage: StageSettings = group(
        "codec", "Stage to train: codec, depth, denoiser of mini; branch, lora of wan5b.", options=STAGES
    )
    clips: str = setting("data/clips", "Folder with clips, see mirage record and mirage prepare.")
    output: str = setting("checkpoints/${stage.model}", "Folder for the stages' checkpoints and the trained weights.")
    seed: int = setting(0, "Seed of the initial weights and the batches.", least=0)
    device: str = setting("cpu", "Where mini is trained: cpu or cuda. accelerate places the real backbone.")
    save_every: float = setting(180.0, "Seconds between checkpoints.", least=0)


@dataclass(frozen=True, kw_only=True)
class SourceSettings(Settings):
    """A source of walks to train on."""

    simulator: Literal["miniworld", "homes"] = "miniworld"
    folder: str
    weight: float = setting(1.0, "How often the source is drawn.", above=0)
    walks: int = setting(1000, "Walks to record if they are missing.", least=0)
    first_seed: int = setting(0, "Seed of the first walk.", least=0)
    frames: int = setting(40, "Frames per walk.", least=2)
    robot_share: float = setting(0.0, "Share of the walks with a robot's camera.", least=0, most=1)
    workers: int = setting(1, "Processes that render.", least=1)


@dataclass(frozen=True, kw_only=True)
class ValidationSettings(Settings):
    """The walks that choose among weights."""

    walks: int = setting(12, "Validation walks of each source, in the subfolder validation.", least=0)
    first_seed: int = setting(700000, "Seed of the first of them.", least=0)


@dataclass(frozen=True, kw_only=True)
class SharesSettings(Settings):
    """How the parts of the recipe share its time budget."""

    record: float = setting(0.1, "Share of the budget for recording walks.", above=0)
    codec: float = setting(0.15, "Share for the codec.", above=0)
    depth: float = setting(0.2, "Share for the depth head.", above=0)
    denoiser: float = setting(0.5, "Share for the denoiser.", above=0)
    finish: float = setting(0.05, "Share for the final comparison and export.", above=0)


@dataclass(frozen=True, kw_only=True)
class RecipeStages(Settings):
    """The stages of the recipe. Their number of steps follows from the time budget."""

    name: str = "mini"
    shares: SharesSettings = setting(SharesSettings(), "")
    protocols: bool = setting(True, "Run the quick evaluation protocols on the result; they come on top of the budget.")
    codec: CodecSettings = setting(CodecSettings(precision="auto"), "")
    depth: DepthSettings = setting(DepthSettings(precision="auto"), "")
    denoiser: DenoiserSettings = setting(DenoiserSettings(precision="auto"), "")


@dataclass(frozen=True, kw_only=True)
class RecipeSettings(WorldSettings):
    """Train all stages of the embedded world within a time budget: record, codec, depth, denoiser, export.

    recipe=mini is for CPUs, recipe=mini-gpu for one GPU. An interrupted run continues with the same command.
    """

    example: ClassVar[str] = "mirage train recipe=mini budget=2h output=checkpoints/mini-recipe"

    recipe: RecipeStages = field(
        default=RecipeStages(), metadata={"presets": "mini", "help": "Settings for CPUs or for a GPU."}
    )
    budget: str = setting("2h", "Time for the whole run, such as 90s, 8m or 2h; it includes earlier, killed attempts.")
    start: str | None = setting(
        "mini",
        "Folder with codec, denoiser and depth.safetensors to begin with; mini is the shipped weights, null none.",
        name="from",
    )
    output: str = setting("checkpoints/mini-recipe", "Folder for the run and the trained weights.")
    clips: dict[str, SourceSettings] = setting(
        {}, "Sources of walks. Missing walks are recorded as mirage record does; walks:0 records none."
    )
    validation: ValidationSettings = setting(ValidationSettings(), "")
    photographs: str | None = setting(
        None, "safetensors file with images uint8 [N, 96, 128, 3], which the codec learns to reconstruct, too."
    )
    seed: int = setting(0, "Seed of the initial weights and the batches.", least=0)
    device: str = setting("cpu", "Where to train: cpu or cuda.")
    save_every: float = setting(60.0, "Seconds between checkpoints.", least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.clips:
            raise ValueError("clips: expected one or more sources with a folder each, got none")
