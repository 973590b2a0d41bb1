from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mirage_sim.geometry import Camera
from mirage_sim.models import MiniDenoiser
from mirage_sim.models.denoiser import ReadoutAligner
from mirage_sim.protocols import Conditioning, MemoryView

B, C, H, W = 2, 8, 12, 16
SIZE = (H, W)


def make() -> MiniDenoiser:
    torch.manual_seed(0)
    return MiniDenoiser(C, widths=(16, 32), aligner_width=16, embedding=32).requires_grad_(False)


def make_view(batch: int = B, frames: int = 1) -> MemoryView:
    generator = torch.Generator().manual_seed(3)
    shape = (batch, frames, H, W)
    visible = torch.rand(shape, generator=generator) < 0.7
    return MemoryView(
        latents=torch.randn(batch, C, frames, H, W, generator=generator) * visible[:, None],
        visible=visible,
        depth=(1 + 4 * torch.rand(shape, generator=generator)) * visible,
        source=torch.arange(visible.numel()).view(shape).where(visible, -1),
        offset=(torch.rand(batch, 2, frames, H, W, generator=generator) - 0.5) * visible[:, None],
        log_scale=torch.randn(shape, generator=generator) * visible,
    )


def make_conditioning(batch: int = B, frames: int = 1) -> Conditioning:
    generator = torch.Generator().manual_seed(4)
    camera = Camera.from_fov(torch.eye(4).expand(batch, frames, 4, 4), 60.0, (4 * H, 4 * W))
    preceding = torch.randn(batch, C, 2, H, W, generator=generator)
    motion = 0.1 * torch.randn(batch, frames, 6, generator=generator)
    return Conditioning(make_view(batch, frames), preceding, motion, camera)


@pytest.fixture
def denoiser(awake) -> MiniDenoiser:
    return awake(make())


@pytest.fixture
def x() -> Tensor:
    return torch.randn(B, C, H, W, generator=torch.Generator().manual_seed(5))


SIGMA = torch.tensor([0.9, 0.3])


def clean_estimate(denoiser: MiniDenoiser, conditioning: Conditioning, x: Tensor, sigma: Tensor = SIGMA) -> Tensor:
    return denoiser.predict_clean(x, sigma, denoiser.condition(conditioning))


def test_velocity_points_to_the_clean_estimate(denoiser: MiniDenoiser, x: Tensor):
    condition = denoiser.condition(make_conditioning())
    velocity = denoiser.velocity(x[:, :, None], SIGMA[:, None], condition)
    assert velocity.shape == (B, C, 1, H, W)
    clean = denoiser.predict_clean(x, SIGMA, condition)
    assert (clean - condition.aligned).abs().mean() > 0.01  # the trunk has an effect
    torch.testing.assert_close(x - SIGMA[:, None, None, None] * velocity[:, :, 0], clean, atol=1e-5, rtol=0)


def test_velocity_is_finite_without_noise(denoiser: MiniDenoiser, x: Tensor):
    velocity = denoiser.velocity(x[:, :, None], torch.zeros(B, 1), denoiser.condition(make_conditioning()))
    assert velocity.isfinite().all()


def test_chunk_of_two_latent_frames_is_rejected(denoiser: MiniDenoiser):
    for batch in (1, 2):
        with pytest.raises(ValueError, match="one latent frame"):
            denoiser.condition(make_conditioning(batch, frames=2))


def test_untrained_denoiser_copies_the_memory(x: Tensor):
    denoiser, conditioning = make(), make_conditioning()
    condition = denoiser.condition(conditioning)
    assert torch.equal(condition.aligned, conditioning.view.latents[:, :, 0])
    assert torch.equal(denoiser.predict_clean(x, SIGMA, condition), condition.aligned)


def test_samples_of_a_batch_are_independent(denoiser: MiniDenoiser, x: Tensor):
    conditioning = make_conditioning()
    together = clean_estimate(denoiser, conditioning, x)
    fields = (getattr(conditioning.view, name)[1:] for name in MemoryView.__dataclass_fields__)
    preceding, motion, camera = conditioning.preceding[1:], conditioning.motion[1:], conditioning.camera[1:]
    alone = Conditioning(MemoryView(*fields), preceding, motion, camera)
    torch.testing.assert_close(clean_estimate(denoiser, alone, x[1:], SIGMA[1:]), together[1:], atol=1e-5, rtol=0)


def test_all_conditioning_affects_the_result(denoiser: MiniDenoiser, x: Tensor):
    conditioning = make_conditioning()
    view = conditioning.view
    expected = clean_estimate(denoiser, conditioning, x)
    preceding = conditioning.preceding.clone()
    preceding[:, :, -1] += 1
    for name, other in {
        "preceding": replace(conditioning, preceding=preceding),
        "motion": replace(conditioning, motion=conditioning.motion + 0.1),
        "visible": replace(conditioning, view=replace(view, visible=~view.visible)),
        "depth": replace(conditioning, view=replace(view, depth=2 * view.depth)),
        "offset": replace(conditioning, view=replace(view, offset=-view.offset)),
        "log_scale": replace(conditioning, view=replace(view, log_scale=view.log_scale + 1)),
        "latents": replace(conditioning, view=replace(view, latents=-view.latents)),
    }.items():
        assert (clean_estimate(denoiser, other, x) - expected).abs().max() > 1e-4, name
    assert (clean_estimate(denoiser, conditioning, x, SIGMA.flip(0)) - expected).abs().max() > 1e-4
    assert (clean_estimate(denoiser, conditioning, -x) - expected).abs().max() > 1e-4


def test_depth_in_holes_is_ignored(denoiser: MiniDenoiser, x: Tensor):
    conditioning = make_conditioning()
    view = conditioning.view
    assert not view.visible.all()
    filled = replace(view, depth=view.depth.where(view.visible, 7.0))
    same = clean_estimate(denoiser, replace(conditioning, view=filled), x)
    assert torch.equal(same, clean_estimate(denoiser, conditioning, x))


def make_aligner(samples_per_cell: int = 2) -> ReadoutAligner:
    torch.manual_seed(0)
    return ReadoutAligner(C, 16, samples_per_cell).requires_grad_(False)


def test_aligner_is_local_and_initially_the_identity(awake):
    view = make_view()
    aligner = make_aligner()
    aligned, features, _ = aligner(view, SIZE)
    assert torch.equal(aligned, view.latents[:, :, 0]) and features.shape == (B, 16, H, W)
    awake(aligner)
    latents = view.latents.clone()
    latents[..., 0, 0] += 1
    changed = (aligner(replace(view, latents=latents), SIZE)[0] != aligner(view, SIZE)[0]).any(1)
    reach = 1 + 2 * 3 + 1
    assert changed[:, :2, :2].all() and not changed[:, reach + 1 :].any() and not changed[..., reach + 1 :].any()


def test_extreme_scale_is_clamped(awake):
    view, aligner = make_view(), awake(make_aligner())
    near, nearer, less = (aligner(replace(view, log_scale=view.log_scale * 0 - z), SIZE)[0] for z in (4.0, 30.0, 2.0))
    assert torch.equal(near, nearer) and not torch.equal(near, less)


def test_aligner_takes_many_latent_frames(awake):
    view, aligner = make_view(2, 3), awake(make_aligner())
    aligned, _, _ = aligner(view, SIZE)
    single = MemoryView(
        view.latents[1:, :, 2:], view.visible[1:, 2:], view.depth[1:, 2:], view.source[1:, 2:],
        view.offset[1:, :, 2:], view.log_scale[1:, 2:],
    )  # fmt: skip
    torch.testing.assert_close(aligner(single, SIZE)[0][0], aligned[1 * 3 + 2], atol=1e-5, rtol=0)


def test_aligner_starts_from_the_most_central_sample():
    view = make_view().resize((2 * H, 2 * W))
    picked = torch.Generator().manual_seed(8)
    visible = torch.rand(view.visible.shape, generator=picked) < 0.5
    offset = torch.rand(view.offset.shape, generator=picked) - 0.5
    latents = torch.randn(view.latents.shape, generator=picked) * visible[:, None]
    aligned, _, _ = make_aligner()(replace(view, visible=visible, offset=offset, latents=latents), SIZE)
    for row, column in [(0, 0), (5, 7), (H - 1, W - 1)]:
        best, expected = 9.0, torch.zeros(C)
        for i in range(2):
            for j in range(2):
                y, x = 2 * row + i, 2 * column + j
                u, v = (float(offset[0, axis, 0, y, x]) + part - 0.5 for axis, part in ((0, j), (1, i)))
                if bool(visible[0, 0, y, x]) and u * u + v * v < best:
                    best, expected = u * u + v * v, latents[0, :, 0, y, x]
        assert torch.equal(aligned[0, :, row, column], expected)


def test_unmoved_latents_are_copied(awake):
    aligner = awake(make_aligner())
    view = make_view()
    fields = {"visible": torch.ones_like(view.visible), "offset": 0 * view.offset, "log_scale": 0 * view.log_scale}
    exact = replace(view, **fields)
    assert torch.equal(aligner(exact, SIZE)[0], exact.latents[:, :, 0])
    fields["offset"] = fields["offset"] + 0.2  # cells
    fields["log_scale"][..., 0] = 0.5  # octaves
    moved, corrected = replace(view, **fields), aligner(replace(view, **fields), SIZE)[0]
    assert (corrected != moved.latents[:, :, 0]).any(1).all()


def test_all_samples_of_a_cell_affect_the_result(awake):
    denoiser, conditioning = awake(make()), make_conditioning()
    fine = conditioning.view.resize((2 * H, 2 * W))
    conditioning = replace(conditioning, view=replace(fine, visible=torch.ones_like(fine.visible)))
    noise = torch.zeros(B, C, H, W)
    before = clean_estimate(denoiser, conditioning, noise)
    for part in [(0, 0), (0, 1), (1, 0), (1, 1)]:
        latents = fine.latents.clone()
        latents[..., part[0] :: 2, part[1] :: 2] += 1
        other = replace(conditioning, view=replace(conditioning.view, latents=latents))
        assert (clean_estimate(denoiser, other, noise) - before).abs().max() > 1e-4


def test_view_on_finer_grid_gives_the_same_condition(denoiser: MiniDenoiser, x: Tensor):
    conditioning = make_conditioning()
    finer = replace(conditioning, view=conditioning.view.resize((2 * H, 2 * W)))
    assert torch.equal(clean_estimate(denoiser, finer, x), clean_estimate(denoiser, conditioning, x))
