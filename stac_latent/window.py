"""Rectangles of a raster: rows and columns by name, yet tuples that unpack."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Self

__all__ = ["Span", "Window", "WindowLike"]

WindowLike = tuple[tuple[int, int], tuple[int, int]]
"""A :class:`Window`, or the plain tuples ``((y0, y1), (x0, x1))`` that users write."""


class Span(NamedTuple):
    """Half-open run of rows or of columns."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        """How many there are."""
        return self.stop - self.start

    def __repr__(self) -> str:
        return repr(tuple(self))


class Window(NamedTuple):
    """Half-open rectangle, in pixels or in cells as the caller says.

    It equals, hashes and prints as the plain tuples ``((y0, y1), (x0, x1))``.

    Examples
    --------
    >>> window = Window.of(((0, 4), (8, 16)))
    >>> window.x.start, window.shape, window
    (8, (4, 8), ((0, 4), (8, 16)))
    """

    y: Span
    x: Span

    @classmethod
    def of(cls, spans: Iterable[Iterable[int]]) -> Self:
        """Make a window of two pairs: first row and the one after the last, then columns."""
        y, x = spans
        return cls(Span(*y), Span(*x))

    @classmethod
    def whole(cls, shape: tuple[int, int]) -> Self:
        """Everything of a raster of this shape (y, x)."""
        return cls(Span(0, shape[0]), Span(0, shape[1]))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.y.size, self.x.size

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of the window in an array ``(..., y, x)``, after an ellipsis."""
        return slice(*self.y), slice(*self.x)

    def scaled(self, factors: tuple[int, int]) -> Self:
        """The same rectangle in units that are smaller by these factors (y, x): pixels of cells."""
        return self.of((lo * f, hi * f) for (lo, hi), f in zip(self, factors, strict=True))

    def shifted(self, by: tuple[int, int]) -> Self:
        """The same rectangle ``by`` (y, x) further down and to the right."""
        return self.of((lo + d, hi + d) for (lo, hi), d in zip(self, by, strict=True))

    def counted_from(self, other: Window) -> Self:
        """The same rectangle with the corner of another window as its origin."""
        return self.shifted((-other.y.start, -other.x.start))

    def __repr__(self) -> str:
        return repr((self.y, self.x))
