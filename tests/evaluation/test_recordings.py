"""`mirage recording info`."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.recordings import START, toy_frames, write_bag, write_re10k, write_tum

from mirage_sim import cli
from mirage_sim.data.recordings import open_recording
from mirage_sim.data.recordings.place import level_from_recording
from mirage_sim.evaluation.recordings import coloured, sheet


def test_info_prints_and_draws(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tum(tmp_path / "Küche 2", toy_frames(9))
    assert cli.main(["recording", "info", "Küche 2", "output=out put", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["layout"], result["images"], result["depth"], result["size"]) == ("tum", 9, 9, [48, 64])
    assert result["map"] == str(Path("out put") / "map.png") and result["sheet"] == str(Path("out put") / "sheet.png")
    with Image.open(result["map"]) as drawn, Image.open(result["sheet"]) as contact:
        assert np.asarray(drawn).std() > 10 and contact.height > 2 * 120
    assert cli.main(["recording", "info", "source=Küche 2"]) == 0
    assert "layout: tum" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Küche 2", "out put"]


def test_topics_are_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bag = write_bag(tmp_path / "bag", toy_frames(2))
    assert cli.main(["recording", "info", str(bag), "topics.image=/rear/image_raw"]) == 2
    assert "expected a topic /rear/image_raw (sensor_msgs/msg/Image or" in capsys.readouterr().err
    assert cli.main(["recording", "info", str(bag), "topics.image=/camera/image_raw"]) == 0


def test_a_refused_recording_leaves_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tum(tmp_path / "walk", toy_frames(2))
    (tmp_path / "walk" / "groundtruth.txt").unlink()
    assert cli.main(["recording", "info", str(tmp_path / "walk"), f"output={tmp_path / 'out'}"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == f"mirage: error: {tmp_path}/walk/groundtruth.txt: expected a file, got none of that name"
    assert not (tmp_path / "out").exists()


def test_recordings_without_depth_are_drawn(tmp_path: Path) -> None:
    write_re10k(tmp_path / "walk", toy_frames(3))
    assert cli.main(["recording", "info", str(tmp_path / "walk"), f"output={tmp_path / 'out'}"]) == 0
    assert (tmp_path / "out" / "map.png").exists()


def test_the_map_is_level_whatever_the_axes_of_the_world(tmp_path: Path) -> None:
    """In a bag z is up; in its map, down is +y, and the first camera stands at the origin and looks along z."""
    recording = open_recording(write_bag(tmp_path / "bag", toy_frames(4)))
    cameras = level_from_recording(recording) @ recording.c2w
    np.testing.assert_allclose(cameras[0], np.eye(4), atol=1e-5)
    np.testing.assert_allclose(cameras[:, 1, 3], 0, atol=1e-5)


def test_the_sheet_shows_first_and_last_image(tmp_path: Path) -> None:
    frames = toy_frames(3)
    drawn = np.asarray(sheet(open_recording(write_tum(tmp_path, frames))))
    for column, frame in ((0, frames[0]), (2, frames[2])):
        assert frame.stamp >= START
        left = 90 + column * 164
        seen = drawn[20 : 20 + 120, left : left + 160].astype(int)
        true = np.asarray(Image.fromarray(frame.image).resize((160, 120), Image.Resampling.BILINEAR)).astype(int)
        np.testing.assert_array_equal(seen, true)


def test_near_depth_is_red_and_unknown_black() -> None:
    colours = coloured(np.array([[0.0, 0.5, 7.9]], np.float32))
    assert colours[0, 0].tolist() == [0, 0, 0]
    assert colours[0, 1, 0] > colours[0, 1, 2] and colours[0, 2, 2] > colours[0, 2, 0]


def test_import_and_export_write_what_others_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_bag(tmp_path / "Küche 2", toy_frames(12))
    assert cli.main(["recording", "import", "Küche 2", "output=new/my lab.world", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["images"] == 12 and 1 <= result["keyframes"] <= 12 and result["points"] > 1000
    assert result["output"] == str(Path("new") / "my lab.world") and result["nbytes"] > 0 < result["images_per_s"]
    words = [
        "recording",
        "export",
        "new/my lab.world",
        "points=maps/lab.ply",
        "grid=the lab",
        "resolution=0.1",
        "--json",
    ]
    assert cli.main(words) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["grid"] == ["the lab.pgm", "the lab.yaml"] and result["points"] == "maps/lab.ply"
    assert result["camera_height"] == pytest.approx(1.5, abs=0.06)  # of the toy room over its floor
    assert (tmp_path / "maps" / "lab.ply").read_bytes().startswith(b"ply\nformat binary_little_endian 1.0\n")
    with Image.open(tmp_path / "the lab.pgm") as opened:
        shades = np.asarray(opened)
    assert {0, 254} <= set(shades.ravel().tolist()) <= {0, 205, 254}
    assert max(shades.shape) <= 6 / 0.1 * 1.5, "the room is 6 m wide, seen at any angle"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["import", "{walk}", "output={walk}/rgb.txt/lab.world"], "output: expected"),
        (["import", "{folder}/none", "output={folder}/lab.world"], "none"),
        (["export", "{walk}", "points={folder}/lab.ply"], "expected"),
        (["export", "{folder}/none.world", "points={folder}/lab.ply"], "none.world"),
        (["export", "{walk}"], "points, grid: expected at least one of them, got neither"),
    ],
)
def test_failed_imports_and_exports_write_nothing(words, message, tmp_path, capsys) -> None:
    walk = write_tum(tmp_path / "walk", toy_frames(2))
    before = sorted(tmp_path.rglob("*"))
    assert cli.main(["recording", *(word.format(walk=walk, folder=tmp_path) for word in words)]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert [path for path in sorted(tmp_path.rglob("*")) if path.suffix in (".world", ".ply")] == []
    assert set(before) <= set(tmp_path.rglob("*"))
