"""Windows: rows and columns by name, and still the tuples that they were."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from stac_latent.window import Span, Window


def test_a_window_is_a_tuple_of_tuples():
    window = Window.of([(0, 4), (8, 16)])
    (y0, y1), (x0, x1) = window
    assert (y0, y1, x0, x1) == (window.y.start, window.y.stop, window.x.start, window.x.stop) == (0, 4, 8, 16)
    plain = ((0, 4), (8, 16))
    assert window == plain
    assert hash(window) == hash(plain)
    assert f"{window}" == repr(window) == repr(plain)
    assert Window.of(plain) == Window.of(window) == window
    again = pickle.loads(pickle.dumps(window))  # noqa: S301 (our own)
    assert (type(again), type(again.x), again) == (Window, Span, window)


def test_windows_of_arrays():
    x = np.arange(60).reshape(1, 6, 10)
    window = Window(Span(1, 3), Span(4, 9))
    assert window.shape == x[:, *window.slices].shape[1:] == (2, 5)
    assert (window.y.size, window.x.size) == (2, 5)
    assert np.array_equal(x[:, *Window.whole((6, 10)).slices], x)
    assert window.scaled((2, 3)) == ((2, 6), (12, 27))
    assert window.shifted((-1, 1)) == ((0, 2), (5, 10))
    assert window.counted_from(Window(Span(1, 6), Span(2, 10))) == ((0, 2), (2, 7))


def test_a_window_has_two_axes():
    with pytest.raises(ValueError, match="unpack"):
        Window.of([(0, 4)])
