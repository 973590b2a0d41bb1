import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mirage_sim.geometry import Camera
from mirage_sim.models.depth_adapters import DepthAnything3, DepthModel, MapAnything, TransformersDepth, UniDepth

transformers = pytest.importorskip("transformers")
SIZE = (28, 42)


def camera(batch: int, frames: int, fov: float = 60.0) -> Camera:
    return Camera.from_fov(torch.eye(4).expand(batch, frames, 4, 4), fov, SIZE)


def frames(batch: int, count: int) -> torch.Tensor:
    return torch.rand(batch, 3, count, *SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1


def nothing(batch: int, count: int) -> torch.Tensor:
    return torch.zeros(batch, count, 2, 3)


def save(folder: Path, **config: Any) -> Path:
    """The real classes at toy size with random weights: a DINOv2 backbone and DPT's head."""
    backbone = transformers.Dinov2Config(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
        out_features=["stage1", "stage2"],
        reshape_hidden_states=False,
    )
    made = transformers.DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=16,
        reassemble_factors=[2, 1],
        neck_hidden_sizes=[8, 8],
        fusion_hidden_size=8,
        head_hidden_size=8,
        **config,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.DepthAnythingForDepthEstimation(made)
    with torch.no_grad():
        model.head.conv3.bias += 0.5  # with random weights the last ReLU may return only zeros
    model.save_pretrained(folder)
    processor = transformers.DPTImageProcessorPil(
        size={"height": 28, "width": 28}, keep_aspect_ratio=True, ensure_multiple_of=14
    )
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def metric(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("metric"), depth_estimation_type="metric", max_depth=20)


@pytest.fixture(scope="module")
def relative(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("relative"), depth_estimation_type="relative")


def test_metric_model_is_returned_unchanged(metric: Path) -> None:
    estimator = TransformersDepth(str(metric))
    video = frames(2, 3)
    depth = estimator(video, camera(2, 3), nothing(2, 3))
    assert depth.shape == (2, 3, *SIZE) and depth.dtype == torch.float32
    pixels = ((video[1, :, 2].permute(1, 2, 0) + 1) * 127.5).round().byte().numpy()
    model = transformers.AutoModelForDepthEstimation.from_pretrained(metric).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(metric)
    with torch.no_grad():
        made = model(**processor(images=pixels, return_tensors="pt"))
    (found,) = processor.post_process_depth_estimation(made, target_sizes=[SIZE])
    torch.testing.assert_close(depth[1, 2], found["predicted_depth"], rtol=1e-4, atol=1e-5)
    assert depth.std() > 0


def test_relative_model_is_inverted_and_scaled(relative: Path) -> None:
    estimator = TransformersDepth(str(relative), typical=2.5)
    video = frames(1, 2)
    depth = estimator(video, camera(1, 2), nothing(1, 2))
    torch.testing.assert_close(depth.flatten(2).median(-1).values, torch.full((1, 2), 2.5), rtol=0.01, atol=0)
    as_it_is = TransformersDepth(str(relative), kind="metric")(video, camera(1, 2), nothing(1, 2))
    product = (depth * as_it_is)[0, 0][as_it_is[0, 0] > 0.1]
    torch.testing.assert_close(product, product[:1].expand_as(product), rtol=1e-3, atol=0)


def test_model_of_unknown_kind_needs_an_argument(tmp_path: Path) -> None:
    config = transformers.GLPNConfig(
        hidden_sizes=[8, 8, 8, 8], depths=[1] * 4, num_attention_heads=[1] * 4, decoder_hidden_size=8
    )
    transformers.GLPNForDepthEstimation(config).save_pretrained(tmp_path)
    transformers.GLPNImageProcessorPil(size_divisor=14).save_pretrained(tmp_path)
    assert not TransformersDepth(str(tmp_path)).relative
    assert TransformersDepth(str(tmp_path), kind="relative").relative
    with pytest.raises(ValueError, match="kind: expected 'metric' or 'relative' .* got 'absolute'"):
        TransformersDepth(str(tmp_path), kind="absolute")  # type: ignore[arg-type]


def test_broken_models_are_rejected_in_one_line(metric: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(metric, folder)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match="expected an image processor beside the model") as caught:
        TransformersDepth(str(folder))
    assert "\n" not in str(caught.value)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(ValueError, match="expected a folder that holds a whole") as caught:
        TransformersDepth(str(folder))
    assert "\n" not in str(caught.value)


class Constant(DepthModel):
    """Returns a constant depth."""

    def __init__(self, depth: torch.Tensor):
        super().__init__()
        self.depth = depth

    def estimate(self, images: torch.Tensor, camera: Camera) -> torch.Tensor:
        assert images.min() >= 0 and images.max() <= 1
        return self.depth


def test_results_are_clamped_and_resized() -> None:
    depth = torch.tensor([[2.0, 4.0, torch.inf], [-1.0, 0.0, 3.0]])[None]
    found = Constant(depth)(frames(1, 1), camera(1, 1), nothing(1, 1))[0, 0]
    assert found.shape == SIZE
    assert not found[14:, :28].any()
    assert found[0, 0] == 2 and found[-1, -1] == 3 and found[0, -1] == 100
    # no value is interpolated between known and unknown
    assert found[found > 0].min() >= 2
    same = torch.full((1, *SIZE), 2.5)
    assert torch.equal(Constant(same)(frames(1, 1), camera(1, 1), nothing(1, 1))[0], same)


def test_nan_is_rejected() -> None:
    depth = torch.ones(2, *SIZE)
    depth[1, 3, 4] = torch.nan
    with pytest.raises(ValueError, match="depth: expected numbers from Constant, got NaN in 1 pixels"):
        Constant(depth)(frames(1, 2), camera(1, 2), nothing(1, 2))


@pytest.mark.parametrize(
    ("adapter", "named"),
    [
        (DepthAnything3, r"depth_anything_3: expected it to be installed \(pip install --no-deps depth-anything-3"),
        (MapAnything, r"mapanything: expected it to be installed \(pip install git\+https"),
        (UniDepth, r"unidepth: expected it to be installed \(pip install git\+https"),
        (
            lambda: TransformersDepth("x"),
            r"transformers: expected it to be installed \(pip install 'mirage_sim\[wan\]'\)",
        ),
    ],
)
def test_missing_library_is_named(adapter: Any, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("depth_anything_3", "mapanything", "unidepth", "transformers"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=named) as caught:
        adapter()
    assert "\n" not in str(caught.value)


class FakeModel:
    """Replaces a model whose library cannot be installed here, to test the adapter's calls."""

    def __init__(self, answer: Any, model_name: str = ""):
        self.answer, self.model_name, self.calls = answer, model_name, []

    def from_pretrained(self, name: str) -> "FakeModel":
        return self

    to = eval = lambda self, *_: self

    def infer(self, *args: Any) -> Any:
        self.calls.append(args)
        return self.answer

    inference = infer


def install(monkeypatch: pytest.MonkeyPatch, module: str, name: str, model: FakeModel) -> None:
    monkeypatch.setitem(sys.modules, module.partition(".")[0], SimpleNamespace())
    monkeypatch.setitem(sys.modules, module, SimpleNamespace(**{name: model}))


def test_depth_anything_3_is_scaled_by_the_focal_length(monkeypatch: pytest.MonkeyPatch) -> None:
    model = FakeModel(SimpleNamespace(depth=np.full((2, 14, 21), 2.0, np.float32)), "da3metric-large")
    install(monkeypatch, "depth_anything_3.api", "DepthAnything3", model)
    view = camera(1, 2, fov=90.0)  # a focal length of half of the height, 7 pixels at the model's resolution
    found = DepthAnything3("somewhere")(frames(1, 2), view, nothing(1, 2))
    torch.testing.assert_close(found, torch.full((1, 2, *SIZE), 2.0 * 7 / 300))
    (images,) = model.calls[0]
    assert [image.shape for image in images] == [(*SIZE, 3)] * 2 and images[0].dtype == np.uint8
    model.model_name = "da3nested-giant-large"
    torch.testing.assert_close(
        DepthAnything3("somewhere")(frames(1, 2), view, nothing(1, 2)), torch.full((1, 2, *SIZE), 2.0)
    )
    model.model_name = "da3-large"
    with pytest.raises(ValueError, match="name: expected a metric model, .* got 'da3-large'"):
        DepthAnything3("somewhere")


def test_map_anything_gets_the_cameras(monkeypatch: pytest.MonkeyPatch) -> None:
    model = FakeModel([{"depth_z": torch.full((1, 350, 518, 1), 3.0)}] * 2)
    install(monkeypatch, "mapanything.models", "MapAnything", model)
    view = camera(1, 2)
    found = MapAnything()(frames(1, 2), view, nothing(1, 2))
    torch.testing.assert_close(found, torch.full((1, 2, *SIZE), 3.0))
    ((first, second),) = model.calls[0]
    assert first["img"].shape == (1, 3, 350, 518) and abs(float(first["img"].mean())) < 1
    torch.testing.assert_close(second["intrinsics"][0], view[0, 1].resize((350, 518)).K)
    torch.testing.assert_close(second["camera_poses"][0], torch.eye(4))
    model.answer = model.answer[:1]
    MapAnything()(frames(1, 1), camera(1, 1), nothing(1, 1))
    assert "camera_poses" not in model.calls[1][0][0]


def test_unidepth_gets_the_intrinsics(monkeypatch: pytest.MonkeyPatch) -> None:
    model = FakeModel({"depth": torch.full((2, 1, *SIZE), 4.0)})
    install(monkeypatch, "unidepth.models", "UniDepthV2", model)
    view = camera(1, 2)
    found = UniDepth()(frames(1, 2), view, nothing(1, 2))
    torch.testing.assert_close(found, torch.full((1, 2, *SIZE), 4.0))
    images, K = model.calls[0]
    assert images.dtype == torch.uint8 and images.shape == (2, 3, *SIZE)
    assert torch.equal(K, view.K[0])
