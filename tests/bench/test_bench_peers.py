"""Each peer gives back what it was given, within its error, with gaps where they were; absent libraries are named."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stac_latent.bench import coder
from stac_latent.bench.coder import Context, UnavailableError
from stac_latent.bench.integers import pack_integers, to_type, unpack_integers
from stac_latent.bench.own_codecs import Chain, chains, fitted_on
from stac_latent.bench.peers import images, jpeg2000, peers
from stac_latent.errors import CorruptDataError
from stac_latent.field.validity import valid_mask
from stac_latent.quality.distortion import Distortion
from stac_latent.spec import Band

REFLECTANCE = tuple(Band(n, "uint16", nodata=0, scale=1e-4) for n in ("B02", "B03", "B04", "B08"))
DECIBEL = tuple(Band(n, "float32", nodata=math.nan) for n in ("VV", "VH"))
METRES = (Band("elevation", "float32", nodata=math.nan),)
SIGNED = tuple(Band(n, "int16", nodata=-9999, scale=1e-4) for n in ("B1", "B2", "B3"))


def field(bands, shape=(64, 96), seed=0):
    """Smooth structure that bands share, in the unit of the bands; a gap where they have a nodata value."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    base = np.sin(x / 9) + np.cos(y / 7) + 0.1 * rng.standard_normal(shape)
    each = np.stack([base * (1 + 0.2 * i) + 0.05 * rng.standard_normal(shape) for i in range(len(bands))])
    if bands is REFLECTANCE:
        each = np.clip(2000 + 500 * each, 1, 10000)
    elif bands is SIGNED:
        each = 500 * each
    elif bands is METRES:
        each = 800 + 300 * each
    else:
        each = -15 + 5 * each
    out = each.astype(bands[0].data_type)
    out[:, 10:30, 20:25] = bands[0].nodata
    return out


def error_of(bands, truth, decoded):
    valid = valid_mask(truth, bands)
    d = Distortion(bands)
    d.add(truth, decoded, valid)
    return d


def context(bands, fit=()):
    x = field(bands)
    valid = np.isfinite(x) & (x != bands[0].nodata) if bands[0].nodata is not None else np.isfinite(x)
    span = float(x[valid].max() - x[valid].min())
    peak = 10_000.0 if bands[0].scale != 1 else span
    return Context(bands, fit, (peak,) * len(bands))


def opened(name, bands):
    entrant = next(e for e in peers() if e.name == name)
    try:
        return entrant.open(context(bands, (field(bands, seed=7),)))
    except UnavailableError as exc:
        pytest.skip(str(exc))


@pytest.mark.parametrize("bands", [REFLECTANCE, DECIBEL, METRES, SIGNED], ids=["s2", "s1", "dem", "signed"])
@pytest.mark.parametrize("name", [p.name for p in peers()])
def test_peers_round_trip(name, bands):
    peer = opened(name, bands)
    x = field(bands)
    best = 0.0
    sizes = []
    for knob in (peer.knobs[len(peer.knobs) // 3], peer.knobs[-1]):
        data = peer.encode(x, knob)
        back = peer.decode(data)
        assert isinstance(data, bytes)
        assert back.shape == x.shape
        assert back.dtype == x.dtype
        gaps = np.isnan(x) if x.dtype.kind == "f" else x == bands[0].nodata
        assert np.array_equal(back[gaps], x[gaps], equal_nan=True)
        d = error_of(bands, x, back)
        best = max(best, d.psnr)
        sizes.append(len(data))
    assert best > 50
    if peer.lossless:
        assert d.psnr == 200 or (x.dtype.kind == "f" and d.psnr > 90)
    else:
        assert sizes[0] < sizes[1]


@pytest.mark.parametrize("name", [p.name for p in peers()])
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (33, 5), (16, 16)])
def test_peers_take_small_fields(name, shape):
    peer = opened(name, REFLECTANCE)
    x = np.maximum(field(REFLECTANCE)[:, : shape[0], : shape[1]], 1)
    try:
        data = peer.encode(x, peer.knobs[-1])
    except (RuntimeError, ValueError) as exc:
        pytest.skip(f"the library refuses {shape}: {exc}")
    assert peer.decode(data).shape == x.shape


def test_the_mask_is_counted_and_its_gaps_do_not_leak():
    peer = opened("JPEG 2000, rate shared among bands", REFLECTANCE)
    x = field(REFLECTANCE)
    whole = np.where(x == 0, 2000, x).astype(x.dtype)
    gap = peer.decode(peer.encode(x, 20.0))
    assert (gap[:, 10:30, 20:25] == 0).all()
    assert (
        abs(
            error_of(REFLECTANCE, x, gap).psnr
            - error_of(REFLECTANCE, whole, peer.decode(peer.encode(whole, 20.0))).psnr
        )
        < 3
    )
    empty = np.zeros_like(x)
    assert not peer.decode(peer.encode(empty, 1.0)).any()


def test_klt_of_the_image_pays_for_its_matrix_and_drops_what_it_does_not_use():
    image = opened("KLT of the image + JPEG 2000", REFLECTANCE)
    x = field(REFLECTANCE, (128, 128))
    few, many = image.encode(x, 0.1), image.encode(x, 30.0)
    raw = x.nbytes
    assert len(many) > 0.25 * raw
    assert len(few) < 400
    klt = error_of(REFLECTANCE, x, image.decode(image.encode(x, 3.0))).psnr
    plain = opened("JPEG 2000, rate shared among bands", REFLECTANCE)
    assert klt > error_of(REFLECTANCE, x, plain.decode(plain.encode(x, 3.0))).psnr


def test_klt_needs_several_bands_and_other_places():
    with pytest.raises(UnavailableError, match="needs two bands or more; got 1"):
        jpeg2000.KltImage(context(METRES))
    with pytest.raises(UnavailableError, match="needs fitting places; the data set has none"):
        jpeg2000.KltStatic(context(REFLECTANCE))


def test_codestreams_have_four_levels_of_the_wavelet():
    """GDAL's default gives a small tile one level only, which would make JPEG 2000 a straw man."""
    x = field(REFLECTANCE, (256, 256)).astype(np.int16)
    data = jpeg2000.codestream(x, 5.0)
    cod = data.index(b"\xff\x52")
    assert data[cod + 9] == 4


def test_absent_libraries_are_named_with_the_way_out(monkeypatch):
    real = __import__("importlib").import_module

    def absent(name, *args):
        if name == "imagecodecs":
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr("importlib.import_module", absent)
    with pytest.raises(
        UnavailableError, match=r"JPEG XL per band needs imagecodecs.*pip install 'stac-latent\[bench\]'"
    ):
        images.JpegXl(context(REFLECTANCE))
    with pytest.raises(UnavailableError, match="needs imagecodecs"):
        coder.need("imagecodecs", "SZ3 3-D")


def test_avif_that_ignores_the_quality_is_refused(monkeypatch):
    pytest.importorskip("imagecodecs")
    monkeypatch.setattr(images.Avif, "_grey", lambda *_: b"same")
    with pytest.raises(UnavailableError, match="codes 12-bit grey without loss whatever the quality"):
        images.Avif(context(REFLECTANCE))


def test_avif_obeys_the_quality():
    avif = opened("AVIF per band", REFLECTANCE)
    x = field(REFLECTANCE)
    coarse, fine = (error_of(REFLECTANCE, x, avif.decode(avif.encode(x, q))) for q in (10.0, 98.0))
    assert coarse.psnr + 5 < fine.psnr


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32", "float64"])
@pytest.mark.parametrize("signed", [True, False])
def test_integers_and_back(dtype, signed):
    kind = np.dtype(dtype)
    x = np.linspace(0, 250, 48).reshape(3, 4, 4).astype(kind)
    if kind.kind != "u":
        x[1] -= 120
    head, levels = pack_integers(x, signed=signed)
    assert levels.dtype == (np.int16 if signed else np.uint16)
    start, offset, step = unpack_integers(head, 3, kind, signed=signed)
    assert start == len(head)
    back = to_type(levels * step[:, None, None] + offset[:, None, None], kind)
    if kind.kind in "iu":
        assert np.array_equal(back, x)
    else:
        assert np.abs(back - x).max() < 0.01


def test_integers_of_the_whole_range():
    x = np.array([[[0, 65535]], [[1, 2]]], np.uint16)
    for signed in (True, False):
        head, levels = pack_integers(x, signed=signed)
        _, offset, step = unpack_integers(head, 2, x.dtype, signed=signed)
        assert np.array_equal(to_type(levels * step[:, None, None] + offset[:, None, None], x.dtype), x)


def test_a_payload_of_another_kind_is_refused():
    peer = opened("COG deflate", REFLECTANCE)
    with pytest.raises(CorruptDataError, match="starts with b'nope'"):
        peer.decode(b"nope" + bytes(40))


@pytest.mark.parametrize("name", ["dct", "wavelet", "lin"])
@pytest.mark.parametrize("bands", [REFLECTANCE, DECIBEL], ids=["s2", "s1"])
def test_chains_sweep_over_rate(name, bands):
    chain = Chain(name, context(bands))
    x = field(bands)
    found = []
    for knob in (20.0, 35.0, 50.0):
        data = chain.encode(x, knob)
        back = chain.decode(data)
        assert back.dtype == x.dtype
        found.append((len(data), error_of(bands, x, back).psnr))
    assert sorted(found) == found
    assert found[-1][1] > found[0][1] + 10


def test_chains_that_do_not_fit_say_why():
    with pytest.raises(UnavailableError, match=r"s2-l2a-12b codes B01, B02.*the fields have VV, VH"):
        Chain("s2-l2a-12b", context(DECIBEL))
    with pytest.raises(UnavailableError, match="is an embedder"):
        Chain("s2-10m-embed", context(REFLECTANCE))
    with pytest.raises(UnavailableError, match="not raced twice"):
        Chain("jpeg2000", context(REFLECTANCE))
    with pytest.raises(UnavailableError, match="no codec 'nothing'"):
        Chain("nothing", context(REFLECTANCE))


def test_unfitted_lin_reaches_values_far_from_zero_for_their_peak():
    """Elevations of a flat tile beside those of mountains: the peak is 1 m, the values thousands."""
    bands = (Band("elevation", "float32", nodata=np.nan),)
    chain = Chain("lin", Context(bands, (), (1.0,), 1, ((8000.0, 8800.0),)))
    x = (8400 + 400 * np.sin(np.arange(64.0) / 5)[None, :, None] * np.ones((1, 64, 64))).astype(np.float32)
    assert abs(chain.decode(chain.encode(x, 40.0)) - x).max() < 0.1


def test_chains_take_fields_in_another_unit():
    """A bundle for uint16 reflectance codes the same reflectance stored as int16 with another scale."""
    bands = tuple(Band(n, "int16", nodata=-9999, scale=2e-4) for n in ("B02", "B03", "B04", "B08"))
    x = (field(REFLECTANCE) // 2).astype(np.int16)
    x[x == 0] = 1
    chain = Chain("s2-10m-4b", Context(bands, (), (5000.0,) * 4))
    back = chain.decode(chain.encode(x, 45.0))
    assert back.dtype == np.int16
    assert np.abs(back.astype(int) - x).max() < 400


def test_installed_codecs_take_part_and_tell_their_places():
    names = [e.name for e in chains(None)]
    assert {"s2-l2a-12b", "dct", "wavelet", "zstd"} <= set(names)
    places = " ".join(fitted_on(["s2-l2a-12b", "dct"]))
    assert "0080717" in places
    assert "0181476" not in places
