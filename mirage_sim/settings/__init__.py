"""The settings of all commands: names, types, defaults, ranges and help in one place."""

from mirage_sim.settings.benchmarks import BENCHMARKS
from mirage_sim.settings.data import (
    ClipsSettings,
    FurnitureSettings,
    LerobotSettings,
    PhotographsSettings,
    RealEstateSettings,
    RecordSettings,
    VideoSettings,
    VipeSettings,
)
from mirage_sim.settings.evaluation import (
    CalibrationSettings,
    CollisionSettings,
    CompareSettings,
    CounterfactualSettings,
    FidelitySettings,
    ForkSettings,
    PhotosSettings,
    ProtocolSettings,
    ReportSettings,
    RevisitSettings,
)
from mirage_sim.settings.fields import Settings
from mirage_sim.settings.machine import DoctorSettings, DownloadSettings
from mirage_sim.settings.recordings import (
    RecordingEvalSettings,
    RecordingExportSettings,
    RecordingImportSettings,
    RecordingInfoSettings,
)
from mirage_sim.settings.rollout import PlanSettings, RolloutSettings, WorldSettings
from mirage_sim.settings.training import RecipeSettings, StageSettings, TrainSettings

#: by command, or command and variant
COMMANDS: dict[str, type[Settings]] = {
    "rollout": RolloutSettings,
    "plan": PlanSettings,
    "train": TrainSettings,
    "train recipe": RecipeSettings,
    "record": RecordSettings,
    "prepare vipe": VipeSettings,
    "prepare realestate10k": RealEstateSettings,
    "prepare clips": ClipsSettings,
    "prepare lerobot": LerobotSettings,
    "prepare photographs": PhotographsSettings,
    "prepare furniture": FurnitureSettings,
    "recording info": RecordingInfoSettings,
    "recording import": RecordingImportSettings,
    "recording export": RecordingExportSettings,
    "eval fidelity": FidelitySettings,
    "eval revisit": RevisitSettings,
    "eval collision": CollisionSettings,
    "eval photos": PhotosSettings,
    "eval recording": RecordingEvalSettings,
    "eval counterfactual": CounterfactualSettings,
    "eval calibration": CalibrationSettings,
    "eval compare": CompareSettings,
    "eval report": ReportSettings,
    **{f"bench {name}": settings for name, settings in BENCHMARKS.items()},
    "doctor": DoctorSettings,
    "download wan5b": DownloadSettings,
}

__all__ = [
    "BENCHMARKS",
    "COMMANDS",
    "CalibrationSettings",
    "ClipsSettings",
    "LerobotSettings",
    "CollisionSettings",
    "CompareSettings",
    "CounterfactualSettings",
    "DoctorSettings",
    "DownloadSettings",
    "FidelitySettings",
    "ForkSettings",
    "FurnitureSettings",
    "PhotosSettings",
    "PlanSettings",
    "ProtocolSettings",
    "ReportSettings",
    "RevisitSettings",
    "PhotographsSettings",
    "RealEstateSettings",
    "RecipeSettings",
    "RecordSettings",
    "RecordingEvalSettings",
    "RecordingExportSettings",
    "RecordingImportSettings",
    "RecordingInfoSettings",
    "RolloutSettings",
    "Settings",
    "StageSettings",
    "TrainSettings",
    "VideoSettings",
    "VipeSettings",
    "WorldSettings",
]
