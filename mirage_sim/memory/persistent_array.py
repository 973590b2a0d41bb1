"""An immutable array whose changed copies share unchanged pages."""

from collections.abc import Iterator
from typing import Any

import numpy as np

PAGE = 64  # rows


class PersistentArray:
    """Immutable rows, stored in pages. A changed copy replaces only the pages with changed rows.

    Args:
        pages: of :data:`PAGE` rows each, except the last.
        empty: an array without rows; determines shape and type of a row.
    """

    def __init__(self, pages: tuple[np.ndarray, ...], empty: np.ndarray) -> None:
        self.pages = pages
        self._empty = empty

    @classmethod
    def of(cls, rows: np.ndarray) -> "PersistentArray":
        """Return an array of these rows."""
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
        """Return all rows as one array; do not write to it."""
        return np.concatenate(self.pages) if len(self.pages) > 1 else (self.pages or (self._empty,))[0]

    def replace(self, rows: np.ndarray, values: np.ndarray) -> "PersistentArray":
        """Return a copy with some rows replaced or appended.

        Args:
            rows: int64 ``[n]``, ascending. Rows from ``len(self)`` on are appended, without gaps.
            values: ``[n, ...]``.
        """
        if not len(rows):
            return self
        pages = list(self.pages)
        numbers = rows // PAGE
        starts = np.flatnonzero(np.diff(numbers, prepend=-1))
        ends = [*starts[1:].tolist(), len(rows)]
        for number, start, end in zip(numbers[starts].tolist(), starts.tolist(), ends, strict=True):
            old = self.pages[number] if number < len(self.pages) else self._empty
            at = rows[start:end] - number * PAGE
            page = np.empty((max(len(old), int(at[-1]) + 1), *old.shape[1:]), old.dtype)
            page[: len(old)] = old
            page[at] = values[start:end]
            pages[number : number + 1] = [page]
        return PersistentArray(tuple(pages), self._empty)
