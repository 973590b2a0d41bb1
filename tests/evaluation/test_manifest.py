import json
from collections import Counter
from pathlib import Path

import pytest
import torch

from mirage_sim.data.simulators import EVALUATION_SEEDS
from mirage_sim.data.simulators.miniworld import HELD_OUT_ENVIRONMENTS, TRAINING_ENVIRONMENTS
from mirage_sim.evaluation.make_manifest import undo
from mirage_sim.evaluation.manifest import Manifest, load_manifest, manifest_path, save_manifest
from mirage_sim.geometry import VelocityLimits

ENVIRONMENTS = TRAINING_ENVIRONMENTS + HELD_OUT_ENVIRONMENTS


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return load_manifest()


def test_committed_manifest_has_the_documented_counts(manifest: Manifest):
    quick = manifest.subset("quick")
    for chosen, walks, circuits in ((manifest, 16, 4), (quick, 2, 1)):
        assert Counter(walk.environment for walk in chosen.walks) == dict.fromkeys(ENVIRONMENTS, walks)
        assert Counter(walk.environment for walk in chosen.circuits) == dict.fromkeys(ENVIRONMENTS, circuits)
    assert (len(manifest.walks), len(manifest.circuits)) == (192, 48)
    assert (len(quick.walks), len(quick.circuits)) == (24, 12)
    assert manifest.subset("full") is manifest


def test_seeds_are_unique_evaluation_seeds(manifest: Manifest):
    seeds = [walk.seed for walk in (*manifest.walks, *manifest.circuits)]
    assert len(set(seeds)) == 240
    assert all(seed in EVALUATION_SEEDS for seed in seeds)
    assert max(seeds) < 900_000 <= EVALUATION_SEEDS.stop  # what follows is reserved


def test_walks_have_32_steps_and_circuits_three_equal_legs(manifest: Manifest):
    assert {len(walk.commands) for walk in manifest.walks} == {32}
    for circuit in manifest.circuits:
        leg = circuit.leg
        assert 24 <= len(circuit.commands) == 3 * leg <= 48
        there, back, again = (list(circuit.commands[i * leg : (i + 1) * leg]) for i in range(3))
        assert back == undo(there) and again == there
        assert not circuit.blocked
    assert any(all(forward == 0 for forward, _ in circuit.commands) for circuit in manifest.circuits)
    assert any(any(forward != 0 for forward, _ in circuit.commands) for circuit in manifest.circuits)


def test_circuits_return_to_the_same_poses(manifest: Manifest):
    for circuit in manifest.circuits:
        c2w, leg = circuit.cameras.c2w, circuit.leg
        torch.testing.assert_close(c2w[2 * leg], c2w[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(c2w[3 * leg], c2w[leg], atol=1e-5, rtol=0)


def test_poses_follow_the_commands(manifest: Manifest):
    drive = VelocityLimits()
    for walk in (*manifest.walks[::16], *manifest.circuits[::4]):
        free = [step for step in range(len(walk.commands)) if step not in walk.blocked]
        motion = drive.motion(torch.tensor(walk.commands))
        c2w = walk.cameras.validate().c2w
        torch.testing.assert_close((c2w[:-1] @ motion)[free], c2w[1:][free], atol=2e-5, rtol=0)


def test_manifest_file_is_small():
    assert manifest_path().stat().st_size < 1_500_000


def test_saved_manifest_loads_unchanged(manifest: Manifest, tmp_path: Path):
    path = tmp_path / "walks.json"
    save_manifest(manifest, path)
    assert load_manifest(path) == manifest
    assert path.read_bytes() == manifest_path().read_bytes()
    assert [file.name for file in tmp_path.iterdir()] == ["walks.json"]


def test_unknown_subset_is_rejected(manifest: Manifest):
    with pytest.raises(ValueError, match="^walks: expected one of"):
        manifest.subset("half")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content.update(protocol=2), "protocol: expected 1, got 2"),
        (lambda content: content["camera"].update(height=1.4), "camera: expected"),
        (lambda content: content["walks"][3].update(seed=900_000), r"walks\[3\]: seed: expected"),
        (lambda content: content["walks"][3].update(seed=5), r"walks\[3\]: seed: expected"),
        (lambda content: content["walks"][0]["poses"].pop(), r"walks\[0\]: poses: expected"),
        (lambda content: content["walks"][0].pop("sha256"), r"walks\[0\]: expected a walk with all its fields"),
        (lambda content: content["circuits"][1].update(leg=5), r"circuits\[1\]: commands: expected three legs"),
    ],
)
def test_damaged_manifest_is_rejected(damage, message: str, tmp_path: Path):
    content = json.loads(manifest_path().read_text())
    damage(content)
    path = tmp_path / "walks.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        load_manifest(path)


def test_truncated_manifest_is_rejected(tmp_path: Path):
    path = tmp_path / "walks.json"
    path.write_text(manifest_path().read_text()[:1000])
    with pytest.raises(ValueError, match="expected a readable manifest"):
        load_manifest(path)
