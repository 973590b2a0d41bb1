"""Protocol 2: walks with various camera mounts, and pairs of homes with held-out and with seen furniture."""

import hashlib
import json
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from mirage_sim.data.simulators import EVALUATION_SEEDS, CameraMount
from mirage_sim.data.simulators.homes.furniture.cache import save_pieces
from mirage_sim.data.simulators.homes.furniture.procedural import procedural_pieces
from mirage_sim.evaluation import collision, ground_truth, make_manifest, runner
from mirage_sim.evaluation.manifest import MOUNT, Manifest, Walk, load_manifest, manifest_path, save_manifest
from mirage_sim.evaluation.metrics import bootstrap_mean
from mirage_sim.evaluation.report import report
from mirage_sim.evaluation.rollout import drive, variants_of
from mirage_sim.evaluation.scores import pair_series
from mirage_sim.evaluation.summary import compare, load_result
from mirage_sim.paths import user_cache

ROBOT = CameraMount(0.45, 72.5)


def walk_of(environment: str, seed: int, mount: CameraMount = MOUNT) -> Walk:
    """A walk of two steps that turns on the spot."""
    poses = tuple((1.0, -2.0, 0.1 * step) for step in range(3))
    return Walk(environment, seed, True, ((0.0, 0.9549),) * 2, (), poses, f"{seed:064x}", mount=mount)


@pytest.fixture
def manifest() -> Manifest:
    unseen = [walk_of("unseen", 801_000, ROBOT), walk_of("unseen", 801_001)]
    return Manifest(
        walks=(walk_of("seen", 800_000), walk_of("seen", 800_001, ROBOT), *unseen),
        circuits=(),
        rendered_by={"renderer": "none"},
        simulator="homes",
        furniture="f" * 64,
        pairs=tuple(replace(walk, environment="paired", sha256="0" * 64) for walk in unseen),
    )


def test_homes_manifest_loads_as_it_was_saved(manifest: Manifest, tmp_path: Path):
    path = tmp_path / "homes.json"
    save_manifest(manifest, path)
    assert load_manifest(path, "homes") == manifest
    assert manifest.protocol == 2 and load_manifest().protocol == 1
    assert manifest.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert load_manifest().sha256 == hashlib.sha256(manifest_path().read_bytes()).hexdigest()
    entries = json.loads(path.read_text())["walks"]
    assert "camera" not in entries[0] and entries[1]["camera"] == {"height": 0.45, "fov": 72.5, "pitch": 0.0}


def test_quick_subset_keeps_the_pairs_of_its_walks(manifest: Manifest):
    slow = replace(manifest.pairs[1], quick=False)
    assert replace(manifest, pairs=(manifest.pairs[0], slow)).subset("quick").pairs == manifest.pairs[:1]


def test_cameras_follow_the_mount(manifest: Manifest):
    pinned, robot = (walk.cameras.validate() for walk in manifest.walks[:2])
    assert pinned.c2w[:, 1, 3].tolist() == [1.5] * 3
    assert robot.c2w[:, 1, 3].tolist() == pytest.approx([0.45] * 3)
    assert torch.equal(pinned.c2w[:, :3, :3], robot.c2w[:, :3, :3])
    assert float(robot.K[0, 1, 1]) == pytest.approx(48 / np.tan(np.radians(72.5) / 2))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content.update(protocol=1), "protocol: expected 2, got 1"),
        (lambda content: content["walks"][1]["camera"].update(fov=180.0), r"walks\[1\]: camera: expected metres"),
        (
            lambda content: content["walks"][1]["camera"].pop("pitch"),
            r"walks\[1\]: expected a walk with all its fields",
        ),
        (lambda content: content["pairs"][1].update(seed=801_002), r"pairs\[1\]: expected the commands and cameras"),
        (lambda content: content["pairs"][0]["camera"].update(height=0.5), r"pairs\[0\]: expected the commands"),
        (lambda content: content["pairs"][0]["poses"][1].__setitem__(0, 1.1), r"pairs\[0\]: expected the commands"),
    ],
)
def test_damaged_homes_manifest_is_rejected(damage, message: str, manifest: Manifest, tmp_path: Path):
    path = tmp_path / "homes.json"
    save_manifest(manifest, path)
    content = json.loads(path.read_text())
    damage(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        load_manifest(path, "homes")


@pytest.mark.parametrize("evaluate", [partial(runner.evaluate, "fidelity"), collision.evaluate])
def test_unknown_protocol_is_rejected(evaluate, model):
    with pytest.raises(ValueError, match=r"^protocol: expected one of \['homes', 'miniworld'\], got 'flat'"):
        evaluate({"protocol": "flat"}, model)


def test_drop_is_the_mean_paired_difference_of_gains():
    walks = {
        "latent_memory": {"psnr_whole_16": np.array([30.0, 25.0, 22.0, 21.0])},
        "first_frame": {"psnr_whole_16": np.array([10.0, 20.0, 15.0, 18.0])},
    }
    pairs = {
        "latent_memory": {"psnr_whole_16": np.array([24.0, 26.0])},
        "first_frame": {"psnr_whole_16": np.array([19.0, 16.0])},
    }
    clips = [("seen", 7), ("unseen", 5), ("unseen", 6), ("seen", 8)]
    # seed 6 gains 22 - 15 = 7 dB and 24 - 19 = 5 in its pair; seed 5 gains 5 and 10
    series = pair_series(walks, clips, pairs, [6, 5])
    assert list(series) == ["unseen_furniture_drop"]
    assert series["unseen_furniture_drop"].interval() == bootstrap_mean(np.array([-2.0, 5.0]))
    assert series["unseen_furniture_drop"].interval().mean == 1.5


@pytest.fixture
def homes_truth(monkeypatch: pytest.MonkeyPatch, manifest: Manifest, long_walks, circuits) -> None:
    """Protocol 2 on synthetic walks of the toy model's size."""

    def load(chosen, manifest: Manifest, cache):
        assert manifest.simulator == "homes"
        names = [(walk.environment, str(walk.seed)) for walk in chosen]
        own = circuits if chosen and chosen[0].leg else long_walks
        return [
            replace(clip, source={"environment": name, "seed": seed})
            for clip, (name, seed) in zip(own, names, strict=False)
        ]

    around = replace(walk_of("seen", 850_000), leg=2)
    monkeypatch.setattr(runner, "load_manifest", lambda protocol: replace(manifest, circuits=(around,)))
    monkeypatch.setattr(runner, "load_truth", load)


def test_homes_are_evaluated_with_pairs(homes_truth, model, tmp_path: Path):
    result = runner.evaluate(
        "fidelity",
        {"protocol": "homes", "output": str(tmp_path), "variants": ["latent_memory", "no_memory", "true_depth"]},
        model,
    )
    metrics = result["marks"]
    assert (result["protocol"], metrics["walks"], metrics["pairs"], metrics["circuits"]) == (2, 4, 2, 1)
    assert (
        metrics["unseen_furniture_drop_lo"] <= metrics["unseen_furniture_drop"] <= metrics["unseen_furniture_drop_hi"]
    )
    assert "unseen_env_drop" not in metrics and {"psnr_16_true_depth", "gain_16_true_depth"} <= set(metrics)
    assert result["driven"] == 3 * (4 + 1) + 2
    assert set(result["environments"]) == {"seen", "unseen"}
    assert result["held_out"]["environments"] == ["unseen"] and result["held_out"]["marks"]["walks"] == 2
    saved = load_result(tmp_path / "fidelity.json")
    assert [(row["environment"], row["seed"]) for row in saved["per_pair"]] == [
        ("paired", 801_000),
        ("paired", 801_001),
    ]
    path = tmp_path / "fidelity.json"
    assert compare(path, path)["marks"]["unseen_furniture_drop"] == 0.0
    page = Path(report(tmp_path)["page"]).read_text()
    assert "protocol 2, 4 walks and 1 circuits" in page and "<code>unseen_furniture_drop</code>)" in page


def test_true_depth_variant_uses_the_scenes_depth(model, long_walks):
    driven = drive(variants_of(model)["true_depth"], long_walks[:2], [3, 2], batch=2)
    for rollout, clip in zip(driven, long_walks, strict=False):
        np.testing.assert_array_equal(rollout.depth, clip.depth[: len(rollout.depth)].float().numpy())
    alone = drive(variants_of(model)["true_depth"], long_walks[1:2], [2])[0]
    np.testing.assert_allclose(alone.frames.astype(int), driven[1].frames.astype(int), atol=1)


def test_missing_or_other_furniture_is_rejected(manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ValueError, match="mirage prepare furniture"):
        ground_truth.load_truth(manifest.walks, manifest)
    save_pieces(procedural_pieces()[:3], user_cache("furniture"))
    with pytest.raises(
        ValueError, match=f"^furniture: expected that of the manifest's homes, {manifest.furniture}, got"
    ):
        ground_truth.load_truth(manifest.walks, manifest)


@pytest.fixture(
    scope="module", params=[("miniworld", "OneRoom"), ("homes", "procedural")], ids=lambda param: str(param[0])
)
def rendered(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, Path]:
    """The manifest of one walk and one circuit with a robot's camera, and the folder of its file."""
    name, environment = request.param
    try:
        simulator = ground_truth.open_simulator(name, environment)
    except ImportError as error:
        pytest.skip(str(error))
    walk = make_manifest.wander(simulator, environment, 800_100, True, ROBOT)
    around = make_manifest.circuits(simulator, environment, 850_100, [ROBOT], quick=1, first_kind=0)
    made = Manifest((walk,), tuple(around), simulator.rendered_by(), name)
    simulator.close()
    folder = tmp_path_factory.mktemp(name)
    save_manifest(made, folder / "manifest.json")
    return made, folder


def test_new_manifest_can_be_rendered_and_evaluated(rendered, model, monkeypatch: pytest.MonkeyPatch):
    made, folder = rendered
    loaded = load_manifest(folder / "manifest.json", made.simulator)
    assert loaded == made and made.walks[0].mount == made.circuits[0].mount == ROBOT
    for module in (runner, collision):
        monkeypatch.setattr(module, "load_manifest", lambda protocol: loaded)
    model = replace(model, size=(96, 128))
    settings = {"protocol": made.simulator, "cache": str(folder / "cache"), "variants": ["latent_memory"]}
    metrics = runner.evaluate("fidelity", settings, model)["marks"]
    assert metrics["walks"] == metrics["circuits"] == 1 and metrics["psnr_16"] > 0
    assert len(list((folder / "cache").iterdir())) == 2
    asked = collision.evaluate(settings | {"variants": ["true_depth"]}, model)["marks"]
    assert asked["probes_true_depth"] > 50
    right = [asked[f"{name}_true_depth"] for name in ("precision", "recall") if asked[f"{name}_true_depth"] is not None]
    assert all(share > 0.6 for share in right)


def test_cached_clip_of_another_camera_is_rejected(rendered):
    made, folder = rendered
    clip = ground_truth.load_truth(made.walks, made, folder / "cache")[0]
    wider = replace(made.walks[0], mount=replace(ROBOT, fov_deg=60.0))
    with pytest.raises(ValueError, match="intrinsics differ"):
        ground_truth.check(clip, wider, {}, {})
    higher = replace(made.walks[0], mount=replace(ROBOT, height=0.5))
    with pytest.raises(ValueError, match="cameras differ"):
        ground_truth.check(clip, higher, {}, {})


def test_committed_homes_manifest_follows_the_protocol():
    whole = load_manifest(protocol="homes")
    quick = whole.subset("quick")
    for chosen, walks, circuits in ((whole, (72, 24), (18, 6)), (quick, (18, 6), (9, 3))):
        for clips, (seen, unseen) in ((chosen.walks, walks), (chosen.circuits, circuits)):
            assert Counter(walk.environment for walk in clips) == {"seen": seen, "unseen": unseen}
            assert sum(walk.mount == MOUNT for walk in clips) * 2 == len(clips)
        assert [walk.seed for walk in chosen.pairs] == [w.seed for w in chosen.walks if w.environment == "unseen"]
        assert {walk.environment for walk in chosen.pairs} == {"paired"}
    clips = [*whole.walks, *whole.circuits]
    assert len({walk.seed for walk in clips}) == 120 and all(walk.seed in EVALUATION_SEEDS for walk in clips)
    assert {len(walk.commands) for walk in whole.walks} == {32}
    robots = [walk.mount for walk in clips if walk.mount != MOUNT]
    assert all(0.3 <= mount.height <= 1.2 and 50 <= mount.fov_deg <= 75 and not mount.pitch_deg for mount in robots)
    assert not {walk.sha256 for walk in whole.pairs} & {walk.sha256 for walk in whole.walks}
