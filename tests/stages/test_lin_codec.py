"""The ``lin`` chain as a codec: every kind of field, bands that are not its own, one result wherever it runs."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lin_support import LAW, plain

from stac_latent import open_codec
from stac_latent.errors import BundleError, CorruptDataError, FieldError
from stac_latent.spec import Band
from stac_latent.stages.lin.stage import Lin
from stac_latent.stages.transform.normalise import LIMIT
from stac_latent.testing import fields, make_field

BANDS = (Band("red", nodata=0, scale=1e-4), Band("nir", nodata=0, scale=1e-4))


def lin(bands=BANDS, **options):
    return open_codec("lin", bands=list(bands), **options)


# -- kinds of fields ---------------------------------------------------------------------------------------------------

TYPES = {
    "uint16": Band("b", "uint16", nodata=0, scale=1e-4),
    "all of uint16": Band("b", "uint16"),
    "int16": Band("b", "int16", nodata=-9999, scale=1e-4),
    "int16, nodata lowest": Band("b", "int16", nodata=-32768),
    "uint8": Band("b", "uint8", nodata=255),
    "float32": Band("b", "float32"),
    "float64": Band("b", "float64", nodata=-1e30),
}


@settings(LAW, max_examples=30)
@given(
    data=st.data(),
    kind=st.sampled_from(sorted(TYPES)),
    count=st.integers(1, 4),
    step=st.sampled_from((0.5, 16.0, 1000.0)),
)
def test_any_field_comes_back(data, kind, count, step):
    """Shape, type and nodata exactly; values within what the step allows."""
    bands = [replace(TYPES[kind], name=f"b{i}") for i in range(count)]
    codec = lin(bands)
    field = data.draw(fields(bands, largest=40))
    back = codec.decompress(codec.compress(field, step=step))
    assert (back.shape, back.dtype) == (field.shape, field.dtype)
    valid = (
        np.ones(field.shape, bool) if bands[0].nodata is None else field != field.dtype.type(bands[0].nodata)
    )
    assert (back[~valid] == field[~valid]).all()
    error = np.abs(back.astype(np.float64) - field)[valid]
    assert error.max(initial=0) <= 12 * step + 1


@settings(LAW, max_examples=20)
@given(
    data=st.data(),
    kind=st.sampled_from(sorted(TYPES)),
    cells=st.tuples(st.integers(1, 34), st.integers(1, 3)),
    holes=st.sampled_from((None, 1, 2)),
)
def test_pixels_are_coded_as_their_latents_are(data, kind, cells, holes):
    """The way from pixels to bytes that lays out no latents gives the bytes of the chain."""
    bands = [replace(TYPES[kind], name=f"b{i}") for i in range(2)]
    seed = data.draw(st.integers(0, 99))
    field = make_field(bands, (cells[0] * 8, cells[1] * 8), seed)
    mask = None if holes is None else np.random.default_rng(seed).random((holes, *field.shape[1:])) < 0.7
    if bands[0].nodata == -1e30:  # far from all that is coded
        known = field != bands[0].nodata
        mask = known if mask is None else mask & known
    codec = lin(bands, step=30.0)
    latent = codec.encode(field, mask=mask, upto="symbols")
    assert codec.encode(field, mask=mask) == codec.entropy_encode(latent)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (9, 1), (1, 300), (8, 8), (257, 3), (255, 257)])
@pytest.mark.parametrize("kind", ["scene", "constant", "noise", "empty"])
def test_sizes(shape, kind):
    field = make_field(BANDS, shape, 3, kind)
    back = lin().decompress(lin().compress(field, max_error=2))
    assert (back.shape, back.dtype) == (field.shape, field.dtype)
    assert ((back == 0) == (field == 0)).all() or kind == "noise"
    assert np.abs(back.astype(int) - field).max() <= 2


def test_constant_and_empty_tiles_cost_a_few_bytes():
    big = make_field(BANDS, (256, 256), 0, "empty")
    empty = len(lin().compress(big)) - len(lin().compress(big[:, :8, :8]))
    assert empty < 60  # the mask
    big[:] = 1234
    assert len(lin().compress(big)) < 280
    assert np.abs(lin().decompress(lin().compress(big)).astype(int) - 1234).max() <= 4


@pytest.mark.parametrize("count", [1, 2, 13, 60, 400])
def test_from_one_band_to_hundreds(count):
    bands = [Band(f"b{i}", "int16") for i in range(count)]
    rng = np.random.default_rng(count)
    y, x = np.mgrid[:16, :24]
    spectra = np.cumsum(rng.normal(0, 20, (count, 3)), axis=0)
    parts = np.stack([np.sin(x / 5), np.cos(y / 4), x * y / 200])
    field = np.rint(1000 + np.tensordot(spectra, parts, 1) + rng.normal(0, 3, (count, 16, 24))).astype(
        np.int16
    )
    back = lin(bands).decompress(lin(bands).compress(field, step=8))
    assert np.abs(back.astype(int) - field).max() < 40
    assert len(lin(bands).compress(field, step=8)) < field.nbytes / 2


def test_nan_is_kept_and_inf_refused():
    bands = [Band("a", "float32"), Band("b", "float32")]
    codec = lin(bands, unit=0.1)
    field = make_field(bands, (20, 30), 1)
    field[0, 3:6, 4] = np.nan
    back = codec.decompress(codec.compress(field, max_error=0.5))
    assert (np.isnan(back) == np.isnan(field)).all()
    assert np.nanmax(np.abs(back - field)) <= 0.5
    everywhere = np.full_like(field, np.nan)
    assert np.isnan(codec.decompress(codec.compress(everywhere))).all()
    for bad in (np.inf, -np.inf):
        field[1, 0, 0] = bad
        with pytest.raises(FieldError, match="NaN or infinite values outside its mask; mask them as nodata"):
            codec.compress(field)


def test_values_beyond_the_range_are_refused():
    bands = [Band("a", "float64"), Band("b", "float64")]
    field = np.zeros((2, 8, 8))
    field[1, 2, 3] = LIMIT / 16
    with pytest.raises(
        FieldError, match=r"values of band 1 \(counted from 0\) are more than 131072 units .* a larger unit="
    ):
        lin(bands).compress(field)
    codec = lin(bands, unit=10.0)
    assert np.abs(codec.decompress(codec.compress(field, step=10.0)) - field).max() < 100


def test_other_bands_are_refused_by_name():
    field = np.ones((3, 8, 8), np.uint16)
    with pytest.raises(FieldError, match=r"codes 2 bands \(red, nir\); got shape \(3, 8, 8\)"):
        lin().compress(field)
    with pytest.raises(FieldError, match=r"at least one pixel; got shape \(2, 0, 8\)"):
        lin().compress(field[:2, :0])
    with pytest.raises(FieldError, match=r"takes uint16; got float32\. Scale the field"):
        lin().compress(field[:2].astype(np.float32))
    with pytest.raises(FieldError, match="takes real numbers; got dtype complex128"):
        lin().compress(field[:2].astype(complex))
    with pytest.raises(CorruptDataError, match="open the codec of that space"):
        lin(step=8.0).decompress(lin().compress(field[:2]))


def test_stage_checks_what_it_is_built_from():
    basis = np.tile(np.eye(2, dtype=np.float32), (7, 1, 1))
    with pytest.raises(BundleError, match=r"basis must be \(7, C, C\); got shape \(6, 2, 2\)"):
        Lin(basis[:6])
    with pytest.raises(BundleError, match="the step must be positive; got 0"):
        Lin(basis, step=0.0)
    with pytest.raises(FieldError, match=r"takes \(128, y, x\) latents of 2 bands; got \(64, 3, 3\)"):
        Lin(basis).forward(np.zeros((64, 3, 3), np.float32))
    holes = np.zeros((128, 3, 3), np.float32)
    holes[5, 1, 1] = np.nan
    with pytest.raises(FieldError, match="NaN or infinite values inside the field"):
        Lin(basis).forward(holes)
    holes[5, 1, 1] = 0
    wide = np.pad(holes, ((0, 0), (0, 2), (0, 1)), constant_values=np.nan)
    assert Lin(basis).forward(wide) == Lin(basis).forward(holes)  # what lies outside the field is left out


# -- one result wherever it is computed ------------------------------------------------------------------------------


@settings(LAW, max_examples=8)
@given(data=st.data())
def test_both_forms_write_and_read_the_same(data):
    field = data.draw(fields(BANDS, largest=50))
    coded = lin().compress(field, step=data.draw(st.sampled_from((4.0, 60.0))))
    back = lin().decompress(coded)
    with plain():
        assert np.array_equal(lin().decompress(coded), back)


CODE = """
import hashlib, numpy as np
from test_lin_codec import lin, BANDS, make_field
from stac_latent.stages.transform.kernels import COMPILED
digest = hashlib.sha256()
for shape in ((33, 70), (104, 8), (1, 1)):
    data = lin().compress(make_field(BANDS, shape, 5), step=20)
    digest.update(data)
    digest.update(lin().decompress(data).tobytes())
print(digest.hexdigest(), COMPILED)
"""


def test_the_same_bytes_without_numba():
    """In processes of their own, since the choice is made when the package is imported."""
    outs = []
    for off in ("", "1"):
        env = {**os.environ, "STAC_LATENT_NO_NUMBA": off, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, "-c", CODE], capture_output=True, text=True, check=True, env=env
        )
        outs.append(done.stdout.split())
    assert outs[0][0] == outs[1][0]
    assert outs[1][1] == "False"


@pytest.mark.parametrize("kind", ["uint16", "float32"])
def test_some_bands_are_those_of_all(kind):
    bands = [Band(f"b{i}", kind, nodata=0, scale=1e-4) for i in range(5)]
    codec = open_codec("lin", bands=bands)
    assert codec.by_band
    payload = codec.encode(make_field(bands, (264, 80), 4))
    whole = codec.decode(payload)
    for chosen in ([3], [0, 4], [4, 1, 1]):
        np.testing.assert_array_equal(codec.decode(payload, bands=chosen), whole[chosen])
    coarse = make_field(bands, (132, 40), 4).repeat(2, axis=1).repeat(2, axis=2)
    coarse[:2] = make_field(bands, (264, 80), 4)[:2]
    parts = codec.encode(coarse)  # bands with repeated pixels apart from others
    for chosen in ([3], [0, 4], [4, 1, 1]):
        np.testing.assert_array_equal(codec.decode(parts, bands=chosen), codec.decode(parts)[chosen])
    symbols = codec.entropy_decode(payload)
    np.testing.assert_array_equal(codec.decode(symbols, bands=[2]), codec.decode(symbols)[2:3])


def test_bands_of_several_types_are_decoded_together():
    bands = [Band("a", "uint8", nodata=0), Band("b", "uint16", nodata=0)]
    codec = open_codec("lin", bands=bands)
    payload = codec.encode(make_field(bands[:1], (64, 64), 4).repeat(2, axis=0).astype(np.uint16))
    assert not codec.by_band
    one = codec.decode(payload, bands=[0])
    assert one.dtype == np.uint16
    np.testing.assert_array_equal(one, codec.decode(payload)[:1])
