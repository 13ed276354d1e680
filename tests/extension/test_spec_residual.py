"""spec/residual.md is enough to decode residuals: the reader that was written from it gives the same pixels, bit for bit."""

from __future__ import annotations

import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from stac_latent.field.error_bound import ErrorBound
from stac_latent.spec import Band
from stac_latent.stages.residual.payload import decode_residual, encode_residual

sys.path.insert(0, str(Path(__file__).parents[1]))
from readers import residual as reader

PAGE = (Path(__file__).parents[2] / "extensions" / "latent" / "spec" / "residual.md").read_text(
    encoding="utf-8"
)


def tiles(dtype, shape, bands=3):
    """Truth, base and mask of a tile with a hole."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[: shape[0], : shape[1]]
    truth = [1000 + 200 * np.sin(y / 9 + i) * np.cos(x / 7) + rng.normal(0, 6, shape) for i in range(bands)]
    if np.dtype(dtype).itemsize == 1:
        truth = [t / 10 for t in truth]
    truth = np.stack(truth).astype(dtype)
    base = truth + rng.normal(0, 10, truth.shape)
    if truth.dtype.kind == "f":
        truth[0, 1, 1], truth[-1, 2, 3] = np.inf, -1e-3
    mask = np.ones(truth.shape, bool)
    mask[:, shape[0] // 3 : shape[0] // 2, shape[1] // 2 :] = False
    mask[-1, -3:, :4] = False
    return truth, base.astype(dtype), mask


@pytest.mark.parametrize(
    ("dtype", "bound", "shape"),
    [
        ("uint16", 2.0, (20, 33)),
        ("uint16", 0.0, (66, 7)),
        ("int16", "1%", (18, 20)),
        ("uint8", 1.0, (33, 9)),
        ("float32", 0.5, (14, 19)),
        ("float32", "2%", (14, 22)),
        ("float32", 0.0, (11, 17)),
        ("float64", "1%", (12, 15)),
        ("uint16", 1.0, (1, 150)),
        ("uint16", 1.0, (150, 1)),
        ("uint16", 1.0, (2, 90)),
    ],
)
def test_reader_gives_the_same_pixels(dtype, bound, shape):
    truth, base, mask = tiles(dtype, shape)
    bands = [Band(n, data_type=dtype, nodata=None) for n in "abc"]
    data = encode_residual(truth, base, mask, ErrorBound.of(bound, bands), bands)
    want = decode_residual(data, base, mask, bands)
    assert data[0] == 1
    assert not np.array_equal(want, base)
    got = np.stack(reader.decode(data, list(base), list(mask)))
    np.testing.assert_array_equal(got.view(np.uint8), want.view(np.uint8))


def test_reader_knows_rows_that_are_left_out():
    rng = np.random.default_rng(1)
    truth = np.repeat(np.repeat(rng.integers(900, 1100, (2, 12, 14)), 2, 1), 3, 2).astype(np.uint16)
    base = (truth + rng.integers(-3, 4, truth.shape)).astype(np.uint16)
    bands = [Band(n, nodata=None) for n in "ab"]
    data = encode_residual(truth, base, None, ErrorBound.of(0.0, bands), bands)
    assert data[0] == data[5] == 1
    np.testing.assert_array_equal(
        np.stack(reader.decode(data, list(base), [np.ones(truth.shape[1:], bool)] * 2)), truth
    )


def test_reader_knows_the_short_forms_and_refuses_another_base():
    bands = [Band("a", nodata=None)]
    truth = np.array([[[1, 60000], [3, 40000]]], np.uint16)
    mask = [np.array([[True, True], [False, True]])]
    plain = encode_residual(truth, truth // 2, np.array(mask), ErrorBound.of(0.0, bands), bands)
    assert plain[0] == 2
    (got,) = reader.decode(plain, [truth[0] // 2], mask)
    assert got.tolist() == [[1, 60000], [1, 40000]]
    nothing = encode_residual(truth, truth, np.array(mask), ErrorBound.of(0.0, bands), bands)
    assert nothing[0] == 0
    np.testing.assert_array_equal(reader.decode(nothing, [truth[0]], mask)[0], truth[0])
    with pytest.raises(reader.Refused):
        reader.decode(nothing, [truth[0] + 1], mask)


def test_page_has_the_checksum_of_the_first_counts():
    counts = np.array(reader.first_counts(), "<u2")
    assert f"`{zlib.crc32(counts.tobytes()):08x}`" in PAGE
