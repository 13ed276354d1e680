"""The closed-form fit: it pays, needs no mercy with holes, and gives the same codec twice."""

from __future__ import annotations

import numpy as np
import pytest

from stac_latent import open_codec
from stac_latent.codec.probe import make_probe
from stac_latent.errors import CodecError, FieldError
from stac_latent.field.validity import valid_mask
from stac_latent.fitting.lin import fit_lin
from stac_latent.spec import Band
from stac_latent.stages.context.coder import ContextModel
from stac_latent.stages.context.fit import ModelFit
from stac_latent.stages.context.model import default_weights
from stac_latent.stages.lin.subbands import layout_of

BANDS = [Band(f"b{i}", nodata=0, scale=1e-4) for i in range(5)]


def tile(seed, shape=(96, 104), bands=BANDS):
    """Bands that are mixtures of two textures, as of a real scene, and noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    texture = [
        np.cumsum(np.cumsum(rng.normal(0, 1, shape), 0), 1) / 9,
        300 * np.sin(x / 3 + y / 7 + seed) + rng.normal(0, 80, shape),
    ]
    mix = np.random.default_rng(99).uniform(0.2, 1, (len(bands), 2))
    field = 1800 + np.tensordot(mix, np.stack(texture), 1) + rng.normal(0, 8, (len(bands), *shape))
    return np.clip(np.rint(field), 1, 20000).astype(np.uint16)


TILES = [(tile(s), None) for s in range(4)]


@pytest.fixture(scope="module")
def fitted():
    return fit_lin("mine", lambda: iter(TILES), BANDS)


def test_a_fit_pays_on_what_it_has_not_seen(fitted):
    field = tile(50)
    plain = open_codec("lin", bands=BANDS)
    sizes = [len(codec.compress(field, psnr=44)) for codec in (fitted, plain)]
    assert sizes[0] < 0.97 * sizes[1]
    back = fitted.decompress(fitted.compress(field, max_error=3))
    assert np.abs(back.astype(int) - field).max() <= 3


def test_what_is_fitted(fitted):
    normalise, _, lin = fitted.stages
    assert [s.name for s in fitted.stages] == ["normalise", "pyramid", "lin"]
    assert normalise.unit.tolist() == [1] * 5
    assert np.allclose(normalise.mean, np.median([f for f, _ in TILES], axis=(0, 2, 3)), rtol=0.02)
    eye = np.eye(5)
    for basis in lin.basis:
        assert np.abs(basis @ basis.T - eye).max() < 1e-3
        assert (basis[np.arange(5), np.abs(basis).argmax(axis=1)] > 0).all()
        assert (basis * 2**14 == np.rint(basis * 2**14)).all()
    assert len(fitted.stats.mean) == len(fitted.stats.std) == fitted.dimensions == 320
    latents = np.concatenate([fitted.encode(f, upto="latent").reshape(320, -1) for f, _ in TILES], axis=1)
    assert np.allclose(latents.mean(axis=1), fitted.stats.mean, atol=0.5)
    assert np.allclose(latents.std(axis=1), fitted.stats.std, atol=0.5)


def test_the_step_has_the_quality_that_was_asked_for():
    for goal in (44.0, 52.0):
        codec = fit_lin("mine", lambda: iter(TILES), BANDS, psnr=goal)
        mse = [np.square(codec.decompress(codec.compress(f)).astype(float) - f).mean() for f, _ in TILES]
        assert 10 * np.log10(1e8 / np.mean(mse)) == pytest.approx(goal, abs=0.7)
    assert fit_lin("mine", lambda: iter(TILES), BANDS, step=12.5).stages[-1].step == 12.5


def test_two_fits_are_one_codec(fitted):
    calls = []

    def tiles():
        calls.append(1)
        yield from TILES

    again = fit_lin("other", tiles, BANDS, about={"description": "of something"})
    assert again.space == fitted.space
    assert again.about == {"description": "of something"}
    assert len(calls) == 2
    fewer = fit_lin("mine", lambda: iter(TILES[:3]), BANDS)
    assert fewer.space != fitted.space


def test_holes_are_left_out(fitted):
    """A masked cloud moves neither centre nor bases much; mostly empty tiles count for nothing."""
    holed = []
    for field, _ in TILES:
        bright = field.copy()
        mask = np.ones((1, *field.shape[1:]), bool)
        mask[:, :40, :50] = False
        bright[:, :40, :50] = 20000
        holed.append((bright, mask))
    empty = (np.zeros_like(TILES[0][0]), np.zeros((1, 96, 104), bool))
    codec = fit_lin("mine", lambda: iter([empty, *holed, empty]), BANDS)
    assert np.allclose(codec.stages[0].mean, fitted.stages[0].mean, rtol=0.03)
    assert np.abs(np.abs(codec.stages[2].basis[1]) - np.abs(fitted.stages[2].basis[1]))[0].max() < 0.1


def test_a_band_without_data_does_not_hinder_the_others():
    """As of hyperspectral scenes, whose bands of water vapour are empty."""
    fields = [np.concatenate([f[:4], np.zeros_like(f[:1])]) for f, _ in TILES]
    codec = fit_lin("mine", lambda: ((f, valid_mask(f, BANDS)) for f in fields), BANDS)
    assert codec.stages[0].mean[4] == 0
    four = fit_lin("mine", lambda: ((f[:4], None) for f in fields), BANDS[:4])
    assert np.array_equal(codec.stages[0].mean[:4], four.stages[0].mean)
    assert codec.stages[2].step == pytest.approx(four.stages[2].step, rel=0.2)
    back = codec.decompress(codec.compress(fields[0], max_error=5))
    assert not back[4].any()
    assert np.abs(back[:4].astype(int) - fields[0][:4]).max() <= 5


def test_the_model_has_a_tile_where_any_is_valid():
    empty = (np.zeros((5, 96, 104), np.uint16), np.zeros((1, 96, 104), bool))
    tiles = [empty, TILES[0]] + [empty] * 10  # every second would be one that is empty
    codec = fit_lin("mine", lambda: iter(tiles), BANDS)
    assert codec.stages[2].step > 1
    assert (codec.stages[2].model.weights != default_weights()).any()


def test_floats_without_a_scale():
    bands = [Band("VV", "float32"), Band("VH", "float32", nodata=-99.0)]
    tiles = []
    for seed in range(3):
        field = tile(seed, bands=bands[:2]).astype(np.float32) / 500 - 18
        field[0, 3:9, 4:7] = np.nan
        field[1, :5] = -99
        tiles.append((field, valid_mask(field, bands)))
    codec = fit_lin("sar", lambda: iter(tiles), bands)
    unit = codec.stages[0].unit
    spread = [np.ptp(np.concatenate([f[i][m[min(i, len(m) - 1)]] for f, m in tiles])) for i in (0, 1)]
    assert np.allclose(unit, np.array(spread) / 1e4, rtol=0.25)
    field, _ = tiles[0]
    back = codec.decompress(codec.compress(field, max_error=0.2))
    assert (np.isnan(back) == np.isnan(field)).all()
    assert (back[1, :5] == -99).all()
    assert np.nanmax(np.abs(back - field)) <= 0.2


def test_one_band_constant_bands_and_any_size():
    for field in (tile(1, (67, 75))[:1], np.full((1, 64, 64), 700, np.uint16)):
        codec = fit_lin("one", lambda f=field: iter([(f, None)]), BANDS[:1])
        back = codec.decompress(codec.compress(field, max_error=2))
        assert np.abs(back.astype(int) - field).max() <= 2


def test_too_little_is_refused():
    with pytest.raises(
        CodecError, match=r"only 64 valid pixels to fit 5 bands on; at least 1000 are needed: give more items"
    ):
        fit_lin("mine", lambda: iter([(tile(0, (8, 8)), None)]), BANDS)
    with pytest.raises(CodecError, match="only 0 valid pixels"):
        fit_lin("mine", lambda: iter([]), BANDS)
    mask = np.zeros((1, 96, 104), bool)
    mask[:, :40] = True
    with pytest.raises(CodecError, match="no tile is at least half valid; give items with fewer holes"):
        fit_lin("mine", lambda: iter([(tile(0), mask)] * 3), BANDS)
    with pytest.raises(FieldError, match="tiles of 1 to 512 pixels a side"):
        fit_lin("mine", lambda: iter([(tile(0, (520, 520)), None)]), BANDS)


def test_models_follow_what_is_coded():
    """Where the parent tells all that can be told it has the weight; where rows are even, the sample to the left."""
    rng = np.random.default_rng(0)
    assert (ModelFit().model().weights == default_weights()).all()
    table, size = layout_of(((1, 128, 128),), 2).program([[1], [1, 1, 1], [1, 1, 1]])
    view = {}
    q = np.zeros(size, np.int32)
    for k, (at, h, w, parent) in enumerate(table[:, :4].tolist()):
        view[k] = q[at : at + (h + 2) * (w + 2)].reshape(h + 2, w + 2)[1:-1, 1:-1]
        mean = np.full((h, w), 4.0) if parent < 0 else view[parent].repeat(2, axis=0).repeat(2, axis=1)
        view[k][...] = rng.poisson(mean)
    fit = ModelFit()
    fit.add(q, table)
    model = fit.model()
    assert isinstance(model, ContextModel)
    for kind in (2, 4, 6):  # the first component of the finest details
        assert (model.weights[kind, :, 2] > 100).all()
        assert (model.weights[kind, :, 2] > 2 * np.delete(model.weights[kind], 2, axis=-1).max(axis=-1)).all()
    for k in range(len(table)):
        view[k][...] = 0 if table[k, 3] < 0 else rng.poisson(4, (len(view[k]), 1))
    fit = ModelFit()
    fit.add(q, table)
    weights = fit.model().weights
    assert (weights[2:8:2, 0].argmax(axis=-1) == 6).all()
    assert (weights[2:8:2, 0, 6] > 150).all()


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "int32", "float32"])
def test_a_band_that_hardly_varies_is_fitted_and_coded(dtype):
    """A constant one beside one that varies: other values than the fit has seen are coded as well, and within what is said."""
    rng = np.random.default_rng(0)
    wave = np.cumsum(np.cumsum(rng.normal(0, 0.2, (64, 64)), axis=0), axis=1)
    wave = (wave - wave.min()) / (wave.max() - wave.min()) * 100
    field = np.stack([wave, np.full(wave.shape, 50)]).astype(dtype)
    bands = [Band("a", dtype), Band("b", dtype)]
    codec = fit_lin("steady", lambda: iter([(field, None)] * 2), bands)
    assert make_probe(codec)
    other = field.copy()
    other[1, 20:30] = 127
    back = codec.decompress(codec.compress(other, error_bound=1))
    assert np.abs(back.astype(float) - other).max() <= 1
    decoded = codec.decompress(codec.compress(field))
    assert np.abs(decoded[1].astype(float) - 50).max() <= 2
