import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mirage_sim.data.simulators import CameraMount
from mirage_sim.evaluation import ground_truth
from mirage_sim.evaluation.ground_truth import check, digest, load_truth, seen_from
from mirage_sim.evaluation.make_manifest import CIRCUIT_KINDS, circuit, wander
from mirage_sim.evaluation.manifest import Manifest, Walk, load_manifest
from mirage_sim.geometry import Camera


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return load_manifest()


@pytest.fixture(scope="module")
def chosen(manifest: Manifest) -> list[Walk]:
    """Two walks and a circuit of one environment, so that one scene set-up serves all."""
    walks = [walk for walk in manifest.walks if walk.environment == "OneRoom"][:2]
    return [*walks, next(walk for walk in manifest.circuits if walk.environment == "OneRoom")]


@pytest.fixture(scope="module")
def rendered(manifest: Manifest, chosen: list[Walk], tmp_path_factory: pytest.TempPathFactory):
    """Clips rendered now, and the cache they went to."""
    try:
        simulator = ground_truth.open_simulator("miniworld", "OneRoom")
    except ImportError as error:
        pytest.skip(str(error))
    here = simulator.rendered_by()
    simulator.close()
    if here != manifest.rendered_by:
        pytest.skip(f"pixels are only equal with the manifest's renderer {manifest.rendered_by}; here: {here}")
    cache = tmp_path_factory.mktemp("protocol")
    return load_truth(chosen, manifest, cache), cache


def test_rendered_walks_match_the_manifest(rendered, chosen: list[Walk]):
    clips, cache = rendered
    assert [digest(clip) for clip in clips] == [walk.sha256 for walk in chosen]
    assert len(list(cache.iterdir())) == len(chosen)
    for clip, walk in zip(clips, chosen, strict=True):
        torch.testing.assert_close(clip.c2w, walk.cameras.c2w, atol=1e-5, rtol=0)
        assert torch.equal(clip.K, Camera.from_fov(torch.eye(4), CameraMount().fov_deg, (96, 128)).K)
        assert (clip.c2w[:, 1, 3] - CameraMount().height).abs().max() < 1e-6


def test_cached_clips_are_loaded_without_rendering(rendered, chosen, manifest, monkeypatch: pytest.MonkeyPatch):
    clips, cache = rendered

    def refuse(*arguments: str):
        raise AssertionError("the cache was not used")

    monkeypatch.setattr(ground_truth, "open_simulator", refuse)
    for first, again in zip(clips, load_truth(chosen, manifest, cache), strict=True):
        assert torch.equal(first.frames, again.frames) and torch.equal(first.depth, again.depth)


def test_committed_walks_can_be_made_again(rendered, chosen: list[Walk]):
    simulator = ground_truth.open_simulator("miniworld", "OneRoom")
    assert wander(simulator, "OneRoom", chosen[1].seed, quick=True) == chosen[1]
    assert circuit(simulator, "OneRoom", chosen[2].seed, CIRCUIT_KINDS[0], quick=True) == chosen[2]
    simulator.close()


def test_check_rejects_other_pixels_poses_or_blocked_steps(rendered, chosen: list[Walk]):
    clip, walk = rendered[0][0], chosen[0]
    frames, depth, c2w = clip.frames.clone(), clip.depth.clone(), clip.c2w.clone()
    frames[5, 50, 60, 1] ^= 1
    depth[-1, 0, 0] += 1e-3
    c2w[7, 0, 3] += 1e-3
    for damaged, message in (
        (replace(clip, frames=frames), "frames or depth differ"),
        (replace(clip, depth=depth), "frames or depth differ"),
        (replace(clip, c2w=c2w), "cameras differ"),
        (replace(clip, blocked=~clip.blocked), "blocked steps differ"),
        (replace(clip, c2w=c2w[:-1]), "expected 33 frames"),
    ):
        with pytest.raises(ValueError, match=f"^{walk.name}: .*{message}|^{walk.name}: {message}"):
            check(damaged, walk, {}, {})


def test_rejected_clip_leaves_no_file_in_the_cache(rendered, chosen, manifest, tmp_path: Path):
    other = replace(chosen[0], sha256="0" * 64)
    with pytest.raises(ValueError, match="frames or depth differ from the manifest"):
        load_truth([other], manifest, tmp_path)
    assert not list(tmp_path.iterdir())


def test_circuit_leaves_a_and_returns(rendered, chosen: list[Walk]):
    clip, leg = rendered[0][2], chosen[2].leg
    cameras = clip.cameras
    in_view = seen_from(clip.depth[0], cameras[0], clip.depth[leg], cameras[leg]).float().mean()
    assert in_view <= 0.2
    assert seen_from(clip.depth[0], cameras[0], clip.depth[leg - 1], cameras[leg - 1]).float().mean() > in_view
    different = (clip.frames[2 * leg] != clip.frames[0]).any(-1).float().mean()
    assert different < 0.01  # rounding of the pose may move a few pixels at edges
    assert (clip.frames[leg] != clip.frames[0]).any(-1).float().mean() > 0.3


def test_missing_miniworld_names_what_to_install(monkeypatch: pytest.MonkeyPatch, manifest, chosen, tmp_path: Path):
    monkeypatch.setitem(sys.modules, "miniworld", None)  # makes the import fail
    with pytest.raises(ImportError, match=r"mirage_sim\[twin\].*libegl1"):
        load_truth(chosen, manifest, tmp_path)


WITHOUT_EGL = """
import ctypes, sys
from pathlib import Path

load = ctypes.CDLL.__init__

def refuse(self, name, *arguments, **settings):
    if "EGL" in str(name):
        raise OSError(f"{name}: cannot open shared object file")
    load(self, name, *arguments, **settings)

ctypes.CDLL.__init__ = refuse
from mirage_sim.evaluation.manifest import load_manifest
from mirage_sim.evaluation.ground_truth import load_truth

manifest = load_manifest()
try:
    load_truth(manifest.circuits[:1], manifest, Path(sys.argv[1]))
except ImportError as error:
    print(error)
"""


def test_missing_egl_names_what_to_install(tmp_path: Path):
    if importlib.util.find_spec("miniworld") is None:
        pytest.skip("MiniWorld is not installed")
    command = [sys.executable, "-c", WITHOUT_EGL, str(tmp_path / "cache")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "apt-get install libegl1" in said and "EGL" in said
    assert not (tmp_path / "cache").exists()


def test_damaged_cached_clip_is_rejected(manifest, chosen, tmp_path: Path):
    walk = chosen[0]
    path = tmp_path / f"{walk.name}-{walk.sha256[:12]}.safetensors"
    path.write_bytes(b"half a clip")
    with pytest.raises(ValueError, match=f"{path.name}: expected a readable clip"):
        load_truth([walk], manifest, tmp_path)
