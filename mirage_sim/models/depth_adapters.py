"""Adapters of published depth models. All return z-depth in metres, 0 where unknown.

Each library is imported when its adapter is constructed. The models' results drift from frame to frame; wrap adapters
in :class:`~mirage_sim.models.depth_alignment.Aligned`.
"""

import inspect
from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from mirage_sim.geometry import Camera
from mirage_sim.models.depth import FARTHEST
from mirage_sim.models.pretrained import load_pretrained, load_processor, require, to_arrays, to_uint8

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class DepthModel(ABC):
    """Base of the adapters. Implements :class:`mirage_sim.protocols.DepthEstimator`, one world at a time.

    Args:
        device: device of the model.
    """

    def __init__(self, device: str = "cpu"):
        self.device = torch.device(device)

    @abstractmethod
    def estimate(self, images: Tensor, camera: Camera) -> Tensor:
        """Estimate the depth of the frames of one world.

        Args:
            images: images ``[N, 3, H, W]`` in [0, 1], on the model's device.
            camera: cameras of batch shape ``[N]`` and size ``(H, W)``, on the model's device.

        Returns:
            z-depth ``[N, *, *]`` in metres at any resolution; 0 or less where unknown, infinite beyond the range.
        """

    @torch.no_grad()
    def __call__(self, frames: Tensor, camera: Camera, known: Tensor) -> Tensor:
        """See :meth:`mirage_sim.protocols.DepthEstimator.__call__`; ``known`` is not used.

        Raises:
            ValueError: if the model returns NaN, which happens at too low a precision or with broken weights.
        """
        batch, _, count, height, width = frames.shape
        depth = frames.new_zeros(batch, count, height, width, dtype=torch.float32)
        for world in range(batch):
            images = (frames[world].transpose(0, 1).float() + 1) / 2
            estimate = self.estimate(images.to(self.device), camera[world].to(self.device)).float()
            if count_nan := int(estimate.isnan().sum()):
                raise ValueError(f"depth: expected numbers from {type(self).__name__}, got NaN in {count_nan} pixels")
            depth[world] = _resize(estimate.clamp(0.0, FARTHEST), (height, width)).to(depth.device)
        return depth


class TransformersDepth(DepthModel):
    """Any model of ``transformers.AutoModelForDepthEstimation``.

    Args:
        name: a folder, or a name on the hub such as ``"depth-anything/Depth-Anything-V2-Metric-Indoor-Large-hf"``.
        kind: output of the model: ``"metric"`` depth, or inverse depth up to scale and shift (``"relative"``); None
            takes it from the model's configuration.
        typical: median depth in metres that is assigned to each frame of a relative model before alignment.
        device: see :class:`DepthModel`.

    Raises:
        ImportError: if transformers is not installed.
        ValueError: if the model's files are incomplete, or its kind is unknown.
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
        self.processor = load_processor(transformers.AutoImageProcessor, name, "an image processor beside the model")
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
        inputs = self.processor(images=to_arrays(images), return_tensors="pt")
        outputs = self.model(**inputs.to(self.device))
        post_process = self.processor.post_process_depth_estimation
        sizes = {"target_sizes": [camera.size] * len(images)}
        if "source_sizes" in inspect.signature(post_process).parameters:  # processors that pad images
            sizes["source_sizes"] = sizes["target_sizes"]
        predicted = torch.stack([result["predicted_depth"] for result in post_process(outputs, **sizes)]).float()
        if not self.relative:
            return predicted
        median = predicted.flatten(1).median(dim=1).values[:, None, None]
        return self.typical * median / predicted.clamp(min=torch.finfo(predicted.dtype).tiny)


class DepthAnything3(DepthModel):
    """The metric models of Depth Anything 3 (PyPI ``depth-anything-3``).

    Args:
        name: a folder, or a name on the hub; ``DA3METRIC-LARGE`` or one of ``DA3NESTED``.
        device: see :class:`DepthModel`.

    Raises:
        ImportError: if the package is not installed.
        ValueError: if the model is not metric.
    """

    def __init__(self, name: str = "depth-anything/DA3METRIC-LARGE", device: str = "cpu"):
        super().__init__(device)
        # the package requires numpy below 2, but works with later versions, hence --no-deps
        api = require("depth_anything_3.api", "--no-deps depth-anything-3, then what its import asks for")
        self.model = api.DepthAnything3.from_pretrained(name).to(self.device).eval()
        kind = self.model.model_name
        if not kind.startswith(("da3metric", "da3nested")):
            raise ValueError(f"name: expected a metric model, DA3METRIC or DA3NESTED, got {kind!r}")
        self.canonical = kind.startswith("da3metric")

    def estimate(self, images: Tensor, camera: Camera) -> Tensor:
        """See :meth:`DepthModel.estimate`."""
        depth = torch.as_tensor(self.model.inference(to_arrays(images)).depth, device=self.device)
        if not self.canonical:
            return depth
        # the model's depth is that of a camera with a focal length of 300 pixels at the model's resolution
        K = camera.resize((depth.shape[-2], depth.shape[-1])).K
        return depth * ((K[:, 0, 0] + K[:, 1, 1]) / 2 / 300)[:, None, None]


class MapAnything(DepthModel):
    """MapAnything: metric depth from frames, intrinsics and, with several frames, poses.

    Args:
        name: a folder, or a name on the hub; ``facebook/map-anything-apache`` has the permissive licence.
        device: see :class:`DepthModel`.

    Raises:
        ImportError: if the package is not installed.
    """

    _PATCH, _LONG_SIDE = 14, 518  # patch size of the image encoder; resolution of the training

    def __init__(self, name: str = "facebook/map-anything-apache", device: str = "cpu"):
        super().__init__(device)
        models = require("mapanything.models", "git+https://github.com/facebookresearch/map-anything")
        self.model = models.MapAnything.from_pretrained(name).to(self.device).eval()

    def estimate(self, images: Tensor, camera: Camera) -> Tensor:
        """See :meth:`DepthModel.estimate`."""
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
        return torch.cat([result["depth_z"][..., 0] for result in self.model.infer(views)])


class UniDepth(DepthModel):
    """UniDepth, version 2: metric depth from a frame and its intrinsics.

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
        return self.model.infer(to_uint8(images), camera.K)["depth"][:, 0]


def _resize(depth: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize depth ``[N, *, *]``. Unknown depth stays unknown and does not mix with known depth."""
    if tuple(depth.shape[-2:]) == size:
        return depth
    is_known = (depth > 0).float()
    summed, weight = (interpolate(part[:, None], size, mode="bilinear")[:, 0] for part in (depth, is_known))
    nearest = interpolate(is_known[:, None], size, mode="nearest-exact")[:, 0]
    return torch.where(nearest > 0, summed / weight, 0.0)
