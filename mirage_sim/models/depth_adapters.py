"""Published depth models behind one contract: z-depth in metres, 0 where unknown.

Each is imported when it is made, by name; none is needed otherwise. What they estimate drifts from frame to frame:
wrap them in :class:`~mirage_sim.models.depth_alignment.Aligned`.
"""

import inspect
from abc import ABC, abstractmethod
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from mirage_sim.geometry import Camera
from mirage_sim.models.depth import FARTHEST
from mirage_sim.models.pretrained import load_pretrained, require

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class DepthModel(ABC):
    """Fulfils :class:`mirage_sim.protocols.DepthEstimator` with a model that sees the frames of one world at a time.

    Args:
        device: where the model runs.
    """

    def __init__(self, device: str = "cpu"):
        self.device = torch.device(device)

    @abstractmethod
    def estimate(self, images: Tensor, camera: Camera) -> Tensor:
        """Depth of the frames of one world.

        Args:
            images: ``[N, 3, H, W]`` in [0, 1], on the model's device.
            camera: batch shape ``[N]``, size ``(H, W)``, there too.

        Returns:
            z-depth ``[N, *, *]`` in metres of any size; 0 or less where unknown, infinite where too far to tell.
        """

    @torch.no_grad()
    def __call__(self, frames: Tensor, camera: Camera, known: Tensor) -> Tensor:
        """See :meth:`mirage_sim.protocols.DepthEstimator.__call__`; what is remembered is not looked at.

        Raises:
            ValueError: if the model gives NaN, as networks do in too low a precision or with broken weights.
        """
        batch, _, count, height, width = frames.shape
        depth = frames.new_zeros(batch, count, height, width, dtype=torch.float32)
        for world in range(batch):
            images = (frames[world].transpose(0, 1).float() + 1) / 2
            made = self.estimate(images.to(self.device), camera[world].to(self.device)).float()
            if bool(made.isnan().any()):
                raise ValueError(
                    f"depth: expected numbers from {type(self).__name__}, got NaN in {int(made.isnan().sum())} pixels"
                )
            depth[world] = _resize(made.clamp(0.0, FARTHEST), (height, width)).to(depth.device)
        return depth


class TransformersDepth(DepthModel):
    """Any model of ``transformers.AutoModelForDepthEstimation``.

    Args:
        name: a folder, or a name on the hub such as ``"depth-anything/Depth-Anything-V2-Metric-Indoor-Large-hf"``.
        kind: what the model gives: ``"metric"`` depth, or inverse depth up to scale and shift (``"relative"``); None
            asks its configuration.
        typical: metres; what the median of a relative model's frame is taken for until alignment knows better.
        device: see :class:`DepthModel`.

    Raises:
        ImportError: if transformers is not installed.
        ValueError: if the model cannot be loaded whole, or does not tell its kind.
    """

    _KINDS = {"depth_pro": "metric", "glpn": "metric", "zoedepth": "metric", "dpt": "relative"}

    def __init__(
        self,
        name: str,
        kind: Literal["metric", "relative"] | None = None,
        typical: float = 3.0,
        device: str = "cpu",
    ):
        super().__init__(device)
        transformers = require("transformers", "'mirage_sim[wan]'")
        self.model = load_pretrained(transformers.AutoModelForDepthEstimation, name).to(self.device)
        try:
            self.processor: Any = transformers.AutoImageProcessor.from_pretrained(name)
        except Exception as error:  # whatever a foreign file does to a foreign loader
            raise ValueError(
                f"{name}: expected an image processor beside the model: {' '.join(str(error).split())[:300]}"
            ) from error
        config = self.model.config
        kind = kind or getattr(config, "depth_estimation_type", None) or self._KINDS.get(config.model_type)  # type: ignore[assignment]
        if kind not in ("metric", "relative"):
            raise ValueError(
                f"kind: expected 'metric' or 'relative' for a model of type {config.model_type!r}, got {kind!r}"
            )
        self.relative = kind == "relative"
        self.typical = typical

    def estimate(self, images: Tensor, camera: Camera) -> Tensor:
        """See :meth:`DepthModel.estimate`."""
        given = self.processor(images=list(_bytes(images).permute(0, 2, 3, 1).cpu().numpy()), return_tensors="pt")
        outputs = self.model(**given.to(self.device))
        finish = self.processor.post_process_depth_estimation
        sizes = {"target_sizes": [camera.size] * len(images)}
        if "source_sizes" in inspect.signature(finish).parameters:  # of models that pad
            sizes["source_sizes"] = sizes["target_sizes"]
        made = torch.stack([found["predicted_depth"] for found in finish(outputs, **sizes)]).float()
        if not self.relative:
            return made
        middle = made.flatten(1).median(dim=1).values[:, None, None]
        return self.typical * middle / made.clamp(min=torch.finfo(made.dtype).tiny)


class DepthAnything3(DepthModel):
    """Depth Anything 3 (PyPI ``depth-anything-3``), the models that measure in metres.

    Args:
        name: a folder, or a name on the hub; ``DA3METRIC-LARGE`` or one of ``DA3NESTED``.
        device: see :class:`DepthModel`.

    Raises:
        ImportError: if the package is not installed.
        ValueError: if the model does not measure in metres.
    """

    def __init__(self, name: str = "depth-anything/DA3METRIC-LARGE", device: str = "cpu"):
        super().__init__(device)
        # it asks for numpy below 2, which nothing of it needs here
        api = require("depth_anything_3.api", "--no-deps depth-anything-3, then what its import asks for")
        self.model = api.DepthAnything3.from_pretrained(name).to(self.device).eval()
        kind = self.model.model_name
        if not kind.startswith(("da3metric", "da3nested")):
            raise ValueError(f"name: expected a model that measures in metres, DA3METRIC or DA3NESTED, got {kind!r}")
        self.canonical = kind.startswith("da3metric")

    def estimate(self, images: Tensor, camera: Camera) -> Tensor:
        """See :meth:`DepthModel.estimate`."""
        found = self.model.inference(list(_bytes(images).permute(0, 2, 3, 1).cpu().numpy()))
        depth = torch.as_tensor(found.depth, device=self.device)
        if not self.canonical:
            return depth
        # its authors: depth as a camera with a focal length of 300 pixels would see it, at the model's own size
        K = camera.resize((depth.shape[-2], depth.shape[-1])).K
        return depth * ((K[:, 0, 0] + K[:, 1, 1]) / 2 / 300)[:, None, None]


class MapAnything(DepthModel):
    """MapAnything: frames, intrinsics and poses together to metric depth.

    Args:
        name: a folder, or a name on the hub; ``facebook/map-anything-apache`` has the permissive licence.
        device: see :class:`DepthModel`.

    Raises:
        ImportError: if the package is not installed.
    """

    _PATCH, _LONG_SIDE = 14, 518  # of its image encoder; pixels it was trained at

    def __init__(self, name: str = "facebook/map-anything-apache", device: str = "cpu"):
        super().__init__(device)
        models = require("mapanything.models", "git+https://github.com/facebookresearch/map-anything")
        self.model = models.MapAnything.from_pretrained(name).to(self.device).eval()

    def estimate(self, images: Tensor, camera: Camera) -> Tensor:
        """See :meth:`DepthModel.estimate`; poses are told where there is more than one frame."""
        scale = self._LONG_SIDE / max(camera.size)
        height, width = (max(round(side * scale / self._PATCH), 1) * self._PATCH for side in camera.size)
        small = interpolate(images, (height, width), mode="bilinear", antialias=True)
        mean, std = (small.new_tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
        K = camera.resize((height, width)).K
        views = []
        for n, image in enumerate((small - mean) / std):
            view = {"img": image[None], "intrinsics": K[n : n + 1], "data_norm_type": ["dinov2"]}
            if len(images) > 1:
                view |= {
                    "camera_poses": camera.c2w[n : n + 1],
                    "is_metric_scale": torch.tensor([True], device=self.device),
                }
            views.append(view)
        return torch.cat([found["depth_z"][..., 0] for found in self.model.infer(views)])


class UniDepth(DepthModel):
    """UniDepth, version 2: a frame and its intrinsics to metric depth.

    Args:
        name: a folder, or a name on the hub.
        device: see :class:`DepthModel`.

    Raises:
        ImportError: if the package is not installed.
    """

    def __init__(self, name: str = "lpiccinelli/unidepth-v2-vitl14", device: str = "cpu"):
        super().__init__(device)
        models = require("unidepth.models", "git+https://github.com/lpiccinelli-eth/UniDepth")
        self.model = models.UniDepthV2.from_pretrained(name).to(self.device).eval()

    def estimate(self, images: Tensor, camera: Camera) -> Tensor:
        """See :meth:`DepthModel.estimate`."""
        return self.model.infer(_bytes(images), camera.K)["depth"][:, 0]


def _resize(depth: Tensor, size: tuple[int, int]) -> Tensor:
    """Depth ``[N, *, *]`` on another grid; what is unknown stays so, and does not mix with what is known."""
    if tuple(depth.shape[-2:]) == size:
        return depth
    is_known = (depth > 0).float()
    summed, weight = (interpolate(part[:, None], size, mode="bilinear")[:, 0] for part in (depth, is_known))
    nearest = interpolate(is_known[:, None], size, mode="nearest-exact")[:, 0]
    return torch.where(nearest > 0, summed / weight, 0.0)


def _bytes(images: Tensor) -> Tensor:
    return (images * 255).round().clamp(0, 255).byte()
