"""An array as a value: a changed copy shares what it does not change."""

from collections.abc import Iterator
from typing import Any

import numpy as np

PAGE = 64  # rows


class PersistentArray:
    """Rows in pages, none of which is ever written to. A changed copy makes the pages anew that it changes.

    Args:
        pages: all but the last are full.
        nothing: an array of no rows; tells the shape of a row, and its type.
    """

    def __init__(self, pages: tuple[np.ndarray, ...], nothing: np.ndarray) -> None:
        self.pages = pages
        self._nothing = nothing

    @classmethod
    def of(cls, rows: np.ndarray) -> "PersistentArray":
        """These rows."""
        pages = tuple(rows[start : start + PAGE].copy() for start in range(0, len(rows), PAGE))
        return cls(pages, rows[:0].copy())

    def __len__(self) -> int:
        return max(len(self.pages) - 1, 0) * PAGE + (len(self.pages[-1]) if self.pages else 0)

    def __getitem__(self, row: int) -> Any:
        if not 0 <= row < len(self):
            raise IndexError(f"row: expected one of {len(self)}, got {row}")
        return self.pages[row // PAGE][row % PAGE]

    def __iter__(self) -> Iterator[Any]:
        return (row for page in self.pages for row in page)

    @property
    def nbytes(self) -> int:
        """Bytes of all pages."""
        return sum(page.nbytes for page in self.pages)

    def array(self) -> np.ndarray:
        """All rows as one array, not to be written to."""
        return np.concatenate(self.pages) if len(self.pages) > 1 else (self.pages or (self._nothing,))[0]

    def replace(self, rows: np.ndarray, values: np.ndarray) -> "PersistentArray":
        """A copy in which some rows have other values.

        Args:
            rows: int64 ``[n]``, ascending. Those from ``len(self)`` on are added, without a gap.
            values: ``[n, ...]``.
        """
        if not len(rows):
            return self
        pages = list(self.pages)
        numbers = rows // PAGE
        starts = np.flatnonzero(np.diff(numbers, prepend=-1))
        ends = [*starts[1:].tolist(), len(rows)]
        for number, start, end in zip(numbers[starts].tolist(), starts.tolist(), ends, strict=True):
            old = self.pages[number] if number < len(self.pages) else self._nothing
            at = rows[start:end] - number * PAGE
            page = np.empty((max(len(old), int(at[-1]) + 1), *old.shape[1:]), old.dtype)
            page[: len(old)] = old
            page[at] = values[start:end]
            pages[number : number + 1] = [page]
        return PersistentArray(tuple(pages), self._nothing)
