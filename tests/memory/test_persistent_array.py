import numpy as np
import pytest

from mirage_sim.memory.persistent_array import PAGE, PersistentArray


def test_changed_copy_shares_unchanged_pages() -> None:
    rows = np.arange(6 * PAGE + 5).reshape(-1, 1) * np.ones(3)
    before = PersistentArray.of(rows)
    at = np.array([1, 2, PAGE, 6 * PAGE + 4, 6 * PAGE + 5, 7 * PAGE, 8 * PAGE])
    at = np.concatenate([at[:4], np.arange(6 * PAGE + 5, 8 * PAGE + 1)])
    after = before.replace(at, -np.ones((len(at), 3)))
    expected = np.concatenate([rows, np.zeros((2 * PAGE - 4, 3))])
    expected[at] = -1
    assert np.array_equal(after.array(), expected) and len(after) == len(expected) == len(list(after))
    assert np.array_equal(before.array(), rows), "a value"
    assert [a is b for a, b in zip(before.pages, after.pages, strict=False)] == [False, False, *[True] * 4, False]
    assert np.array_equal(after[PAGE], expected[PAGE])
    with pytest.raises(IndexError, match="^row: expected"):
        after[len(expected)]


def test_array_without_rows() -> None:
    nothing = PersistentArray.of(np.zeros((0, 2), np.float32))
    assert len(nothing) == nothing.nbytes == 0 and nothing.array().shape == (0, 2)
    assert nothing.replace(np.zeros(0, np.int64), np.zeros((0, 2))) is nothing
    one = nothing.replace(np.array([0]), np.ones((1, 2)))
    assert one.array().dtype == np.float32 and one.array().tolist() == [[1, 1]]
