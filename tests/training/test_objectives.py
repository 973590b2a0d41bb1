import pytest
import torch
from support.toy_world import toy_model
from torch import Tensor, nn

from mirage_sim.data.dataset import WalkDataset
from mirage_sim.geometry import Camera
from mirage_sim.memory import RgbMemory
from mirage_sim.memory.rgb_memory import encode_rendering
from mirage_sim.models import MiniCodec, MiniDenoiser, MiniDepth
from mirage_sim.training.batched_memory import BatchMap
from mirage_sim.training.loop import Objective
from mirage_sim.training.objectives.codec import CodecObjective, image_loss, mostly_visible
from mirage_sim.training.objectives.denoiser import DenoiserObjective, encode_walks
from mirage_sim.training.objectives.depth import DepthObjective


def networks() -> tuple[MiniCodec, MiniDenoiser, MiniDepth]:
    """Trainable toy networks with noise on all weights."""
    model = toy_model()
    for network in (model.codec, model.denoiser, model.depth):
        network.train().requires_grad_(True)
    return model.codec, model.denoiser, model.depth


def codec_objective(data: WalkDataset) -> tuple[Objective, dict[str, nn.Module]]:
    codec, denoiser, _ = networks()
    return CodecObjective(data, codec, denoiser.aligner, batch=3), {"codec": codec, "aligner": denoiser.aligner}


def depth_objective(data: WalkDataset) -> tuple[Objective, dict[str, nn.Module]]:
    codec, _, depth = networks()
    return DepthObjective(data, codec.eval().requires_grad_(False), depth, batch=4), {"depth": depth}


def denoiser_objective(
    data: WalkDataset, self_rollout_fraction: float = 1.0, precision: str = "float32"
) -> tuple[Objective, dict[str, nn.Module]]:
    codec, denoiser, depth = networks()
    for frozen in (codec, depth):
        frozen.eval().requires_grad_(False)
    objective = DenoiserObjective(
        data, codec, depth, denoiser, batch=6, self_rollout_fraction=self_rollout_fraction, precision=precision
    )
    return objective, {"denoiser": denoiser}


def denoiser_at_all_noise_levels(data: WalkDataset) -> tuple[Objective, dict[str, nn.Module]]:
    return denoiser_objective(data, self_rollout_fraction=0.0)


def denoiser_in_bfloat16(data: WalkDataset) -> tuple[Objective, dict[str, nn.Module]]:
    return denoiser_objective(data, self_rollout_fraction=0.0, precision="bfloat16")


OBJECTIVES = {
    "codec": codec_objective,
    "depth": depth_objective,
    "denoiser": denoiser_objective,
    "denoiser at all noise levels": denoiser_at_all_noise_levels,
    "denoiser in bfloat16": denoiser_in_bfloat16,
}


def run(objective: Objective, seed: int) -> dict[str, Tensor]:
    return objective(torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_one_step_gives_gradients_to_all_parameters(name: str, data: WalkDataset):
    objective, modules = OBJECTIVES[name](data)
    terms = run(objective, 0)
    for term, value in terms.items():
        assert value.shape == () and value.isfinite(), term
    assert terms["loss"] > 0
    terms["loss"].backward()
    for module_name, module in modules.items():
        for key, parameter in module.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), f"{module_name}.{key}"
            if key.endswith("weight"):  # some biases of attention have no effect
                assert bool(parameter.grad.any()), f"{module_name}.{key}"


@pytest.mark.parametrize("name", OBJECTIVES)
def test_generator_alone_determines_the_batch(name: str, data: WalkDataset):
    def losses(seed: int) -> list[float]:
        objective, _ = OBJECTIVES[name](data)
        return [run(objective, seed + step)["loss"].item() for step in range(2)]

    torch.manual_seed(1)
    first = losses(5)
    torch.manual_seed(2)  # the global state has no effect
    assert losses(5) == first
    assert all(one != other for one, other in zip(losses(7), first, strict=True))


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name != "denoiser"])  # which advances its episodes
def test_loss_falls_within_12_steps_on_one_batch(name: str, data: WalkDataset):
    objective, modules = OBJECTIVES[name](data)
    parameters = [parameter for module in modules.values() for parameter in module.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=3e-3)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = run(objective, 3)["loss"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("kind", [CodecObjective, DepthObjective])
def test_gap_longer_than_walks_is_rejected(kind: type, data: WalkDataset):
    codec, denoiser, depth = networks()
    with pytest.raises(ValueError, match="gap: expected 1 to 39 frames on walks of 40, got 40"):
        kind(data, codec, denoiser.aligner if kind is CodecObjective else depth, gap=40)


def test_photographs_are_a_fraction_of_the_batch(data: WalkDataset):
    codec, denoiser, _ = networks()
    images = torch.zeros(2, 48, 64, 3, dtype=torch.uint8)
    objective = CodecObjective(data, codec, denoiser.aligner, batch=4, photographs=images, photograph_share=0.5)
    seen: list[Tensor] = []
    encode = codec.encode_frames
    codec.encode_frames = lambda frames: (seen.append(frames), encode(frames))[1]
    run(objective, 0)["loss"].backward()
    walks, photographs = seen
    assert walks.shape == (6, 3, 48, 64) and photographs.shape == (2, 3, 48, 64)
    assert (photographs == -1).all() and not (walks == -1).all()


def test_unknown_precision_is_rejected(data: WalkDataset):
    with pytest.raises(ValueError, match="precision: expected one of .*float32.*, got 'half'"):
        denoiser_objective(data, precision="half")


def test_denoiser_objective_leaves_the_codec_frozen(data: WalkDataset):
    objective, _ = denoiser_objective(data)
    run(objective, 0)["loss"].backward()
    assert all(parameter.grad is None for parameter in objective.codec.parameters())


def test_rendered_colours_equal_those_of_the_rgb_memory(data: WalkDataset):
    codec = networks()[0].eval().requires_grad_(False)
    frames, depth, camera = data.draw(torch.tensor([1]), torch.tensor([[0, 8, 20]]))
    batch = BatchMap.empty(1, 3)
    memory = RgbMemory(codec, codec.stride)
    kept = memory.empty()
    for moment in (0, 1):
        batch = batch.write(frames[:, moment], depth[:, moment], camera[:, moment])
        kept = memory.write(
            kept, latents=torch.zeros(8, 1, 12, 16), frames=frames[0, moment, :, None], depth=depth[0, moment, None],
            static=torch.ones(1, 48, 64, dtype=torch.bool), camera=camera[0, moment : moment + 1],
        )  # fmt: skip
    simulated = encode_rendering(codec, batch.read(camera[:, 2]), (12, 16))
    real = memory.read(kept, camera[0, 2:])
    assert 0.3 < real.visible.float().mean() <= 1
    for name in ("visible", "depth", "offset", "log_scale"):
        assert torch.equal(getattr(simulated, name)[0], getattr(real, name)), name
    torch.testing.assert_close(simulated.latents[0], real.latents, atol=1e-5, rtol=0)


def test_encoded_walks_equal_the_codecs_latents(data: WalkDataset):
    codec = networks()[0]
    latents = encode_walks(data, codec)
    assert latents.shape == (3, 40, 8, 12, 16) and latents.dtype == torch.float16
    frames = data.draw(torch.tensor([2]), torch.tensor([[7]])).frames[:, 0]
    with torch.no_grad():
        torch.testing.assert_close(latents[2, 7].float(), codec.encode_frames(frames)[0], atol=2e-3, rtol=0)


def test_image_loss_matches_hand_computed_values():
    true = torch.zeros(1, 3, 4, 4)
    generated = true.clone()
    generated[0, :, 1, 1] = 0.5  # one wrong pixel counts itself and four differences from its neighbours
    torch.testing.assert_close(image_loss(generated, true), torch.tensor(5 * 0.5 / 16))
    torch.testing.assert_close(image_loss(true + 0.3, true), torch.tensor(0.3))
    weight = torch.zeros(1, 1, 4, 4)
    weight[..., 2:, :] = 1.0  # only the difference across the border of the weighted half counts
    torch.testing.assert_close(image_loss(generated, true, weight), torch.tensor(0.5 / 8))
    assert image_loss(generated, true, 0 * weight) == 0
    coarse = torch.tensor([[[[0.0, 0.0], [1.0, 1.0]]]])  # the same weight per cell of 2 x 2 pixels
    torch.testing.assert_close(image_loss(generated, true, coarse), torch.tensor(0.5 / 8))


def test_mostly_visible_closes_gaps_but_not_beyond_edges():
    visible = torch.zeros(1, 1, 6, 8, dtype=torch.bool)
    visible[..., :4] = True
    visible[0, 0, 2, 1] = False
    weight = mostly_visible(visible)
    assert weight.shape == (1, 1, 6, 8)
    assert weight[0, 0, 2, 1] == 1  # the gap
    assert (weight[..., 5:] == 0).all()  # beyond the edge
    assert (weight[0, 0, 2, 2:4] == 1).all()


class RecordingDepth(MiniDepth):
    """Records its inputs."""

    def log_depth(self, frames: Tensor, camera: Camera, known: Tensor) -> Tensor:
        self.frames, self.known = frames, known
        return super().log_depth(frames, camera, known)


def depth_inputs(data: WalkDataset, **options: float) -> RecordingDepth:
    model = RecordingDepth((16, 32))
    run(DepthObjective(data, networks()[0].eval().requires_grad_(False), model, batch=4, **options), 0)
    return model


def test_half_of_the_depth_batch_gets_known_depth(data: WalkDataset):
    shares = (depth_inputs(data, latent_noise=0.0).known > 0).flatten(1).float().mean(1)
    assert (shares[:2] > 0.1).all() and (shares[2:] == 0).all()


def test_known_depth_has_errors_of_the_requested_size(data: WalkDataset):
    exact, erring = (depth_inputs(data, drift=0.0, error=error).known[:2] for error in (0.0, 0.02))
    both = (exact > 0) & (erring > 0)
    off = torch.log(erring[both] / exact[both])
    assert 0.01 < off.std() < 0.04


def test_depth_frames_are_clean_or_decoded(data: WalkDataset):
    decoded, mixed, clean = (depth_inputs(data, clean=fraction).frames for fraction in (0.0, 0.6, 1.0))
    same = [(frames == clean).flatten(1).all(1) for frames in (decoded, mixed)]
    assert not same[0].any() and same[1].any() and not same[1].all()
    assert torch.equal(torch.where(same[1][:, None, None, None], clean, decoded), mixed)
