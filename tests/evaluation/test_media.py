from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mirage_sim.data.video_io import video_facts
from mirage_sim.evaluation.media import contact_sheet, save_video, side_by_side, tint_generated, titled, top_down


def test_sheets_and_panels_show_their_frames() -> None:
    frame = np.full((6, 8, 3), 90, dtype=np.uint8)
    seen = np.zeros((6, 8), dtype=bool)
    seen[:, :4] = True
    tinted = tint_generated(frame, seen)
    assert (tinted[:, :4] == 90).all()
    assert (tinted[:, 4:, 0] > tinted[:, 4:, 2]).all()
    assert side_by_side({"a": frame, "b": tinted}, 3).shape == (38, 48, 3)
    sheet = np.asarray(contact_sheet({"x": [frame] * 3}, [0, 5, 9], scale=2))
    assert (sheet[20:32, 90:106] == 90).all()
    for name in ("x", "as long as any name of a row"):
        sheet = np.asarray(contact_sheet({name: [np.zeros_like(frame)]}, [0]))[20:]
        after = sheet.shape[1] - 2 * 8 - 4 - 4  # of the margin, four pixels before the frame
        assert (sheet[:, :after] > 200).any() and (sheet[:, after:] < 100).all(), "the name ends before the frame"


def test_title_is_above_the_image() -> None:
    image = np.full((6, 60, 3), 90, dtype=np.uint8)
    for title in ("a", "a title that is far too long for so small a image"):
        whole = titled(image, title)
        assert whole.shape == (26, 60, 3)
        assert (whole[20:] == 90).all()
        assert (whole[:20].min(-1) > 200).any(), "ink"


def test_top_down_map_hides_low_points_and_ceilings() -> None:
    points = np.array(
        [[-1.0, 1.0, 4.0], [1.0, 1.0, 4.0], [1.0, 0.5, 4.0], [0.0, -2.0, 4.0]]
    )  # left, right twice, ceiling
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]], dtype=np.uint8)
    path, forward = np.zeros((2, 3)), np.tile([0.0, 0.0, 1.0], (2, 1))
    image = np.asarray(top_down(points, colours, path, forward)).astype(int)

    def where(colour: list[int]) -> np.ndarray:
        return np.argwhere((image == colour).all(-1))

    assert where([255, 0, 0])[:, 1].max() < where([0, 0, 255])[:, 1].min()  # left is left
    assert where([255, 0, 0])[:, 0].max() < image.shape[0] / 2  # ahead is up
    assert not len(where([0, 255, 0]))  # below the other point
    assert not len(where([255, 255, 0]))


def test_top_down_map_of_an_empty_memory() -> None:
    path = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    assert top_down(np.zeros((0, 3)), np.zeros((0, 3), np.uint8), path, np.tile([0.0, 0.0, 1.0], (2, 1))).size[1] == 720


def test_interrupted_video_leaves_no_file(tmp_path: Path) -> None:
    def frames() -> Any:
        yield np.zeros((32, 32, 3), dtype=np.uint8)
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        save_video(frames(), tmp_path / "a.mp4", 10)
    assert not (tmp_path / "a.mp4").exists()


def test_video_path_is_never_an_option_or_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    frame = np.full((32, 48, 3), 90, dtype=np.uint8)
    save_video([frame] * 3, Path("-y a:b.mp4"), 10)
    assert video_facts(Path("-y a:b.mp4")) == (10.0, 3, (32, 48))
    assert [path.name for path in tmp_path.iterdir()] == ["-y a:b.mp4"]
