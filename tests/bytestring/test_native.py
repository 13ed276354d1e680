"""Fields of several native grids as one byte string: sizes, masks, types, targets, damage."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lin_support import LAW, needs_numba, plain

from stac_latent import open_codec
from stac_latent.bytestring.grid_families import Family, families, families_of
from stac_latent.errors import CodecError, CorruptDataError, FieldError, OptionError
from stac_latent.spec import Band
from stac_latent.testing import damaged, make_field

S2 = {10: 4, 20: 6, 60: 2}
"""Bands by pixel size [m]."""
SMALL = {10: 2, 20: 2, 60: 1}


@functools.cache
def native_codec(*grids, dtype="uint16", nodata=0, scale=1e-4, step=64.0):
    """A chain of bands on grids ``(gsd, count)``."""
    bands = [
        Band(f"B{gsd}m{i}", dtype, nodata=nodata, scale=scale, gsd=gsd) for gsd, n in grids for i in range(n)
    ]
    return open_codec("lin", bands=bands, mean=1300.0, unit=0.1 if dtype == "float32" else 1.0, step=step)


def small(**options):
    return native_codec(*SMALL.items(), **options)


def sizes(codec, shape):
    """Pixels of each grid that cover the same ground."""
    gsd = list(dict.fromkeys(b.gsd for b in codec.bands))
    return [tuple(int(-(-n * gsd[0] // g)) for n in shape) for g in gsd]


def scene(codec, shape, seed=0, kind="scene"):
    """Fields of all grids of a codec."""
    groups = [[b for b in codec.bands if b.gsd == g] for g in dict.fromkeys(b.gsd for b in codec.bands)]
    return [
        make_field(bands, s, seed + i, kind)
        for i, (bands, s) in enumerate(zip(groups, sizes(codec, shape), strict=True))
    ]


def same_shapes(fields, back):
    assert [(x.shape, x.dtype) for x in fields] == [(y.shape, y.dtype) for y in back]


def largest_error(fields, back, nodata=0):
    out = 0.0
    for x, y in zip(fields, back, strict=True):
        valid = np.isfinite(x) & (x != nodata)
        out = max(out, float(np.abs(y[valid].astype(float) - x[valid]).max(initial=0)))
    return out


def psnr_of(fields, back, peak=10_000.0):
    """PSNR over the valid samples of all grids together."""
    valid = [x != 0 for x in fields]
    e = np.concatenate([y[m].astype(float) - x[m] for x, y, m in zip(fields, back, valid, strict=True)])
    return 10 * np.log10(peak**2 / np.mean(e**2))


# -- which grids share a pyramid ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grids", "joint", "alone"),
    [
        (S2, (0, 1), [(2,)]),
        ({15: 1, 30: 7, 100: 2}, (0, 1), [(2,)]),
        ({30: 7, 100: 2}, (0,), [(1,)]),
        ({15: 1, 30: 7, 60: 2}, (0, 1, 2), []),
        ({10: 1, 20: 1, 40: 1, 80: 1}, (0, 1, 2, 3), []),
        ({10: 1, 20: 1, 40: 1, 80: 1, 160: 1}, (0, 1, 2, 3), [(4,)]),
        ({10: 1, 15: 1, 20: 1}, (0, 2), [(1,)]),
        ({10: 1, 40: 1}, (0,), [(1,)]),
        ({0.3: 3, 0.6: 1}, (0, 1), []),
        ({250: 2}, (0,), []),
    ],
)  # fmt: skip
def test_families(grids, joint, alone):
    codec = native_codec(*grids.items())
    found = families(codec)
    assert [f.grids for f in found] == [joint, *alone]
    counts = [len(b) for f in found for b in f.bands]
    assert sum(counts) == len(codec.bands)
    fields = scene(codec, (13, 21))
    same_shapes(fields, codec.decompress(codec.compress(fields)))


def test_families_of_sentinel_2():
    assert families(native_codec(*S2.items())) == (
        Family((0, 1), ((0, 1, 2, 3), (4, 5, 6, 7, 8, 9))),
        Family((2,), ((10, 11),)),
    )
    assert families_of([1, 2, 3], [0, 2]) == (Family((0, 2), ((0,), (3, 4, 5))), Family((1,), ((1, 2),)))


# -- round trips -------------------------------------------------------------------------------------------------------


@settings(LAW, max_examples=25)
@given(
    st.integers(1, 70), st.integers(1, 70), st.integers(0, 99), st.sampled_from(["scene", "sparse", "empty"])
)
def test_any_size(h, w, seed, kind):
    codec = small()
    fields = scene(codec, (h, w), seed, kind)
    back = codec.decompress(codec.compress(fields, max_error=20))
    same_shapes(fields, back)
    for x, y in zip(fields, back, strict=True):
        np.testing.assert_array_equal(y == 0, x == 0)
    assert largest_error(fields, back) <= 20


@pytest.mark.parametrize("shape", [(1, 1), (1, 57), (57, 1), (2, 2), (3, 3), (8, 8)])
@pytest.mark.parametrize("grids", [S2, {10: 1, 20: 1, 40: 2, 80: 1}])
def test_small_sizes(grids, shape):
    codec = native_codec(*grids.items(), nodata=None)
    fields = scene(codec, shape, 2, "constant")
    back = codec.decompress(codec.compress(fields, max_error=2))
    same_shapes(fields, back)
    assert largest_error(fields, back) <= 2


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [("uint16", 0), ("uint16", None), ("int16", -32768), ("float32", None), ("float32", -9999.0)],
)
def test_types_and_masks(dtype, nodata):
    codec = small(dtype=dtype, nodata=nodata)
    fields = scene(codec, (45, 38), 4)
    hole = np.nan if nodata is None else nodata
    if (
        dtype == "float32" or nodata is not None
    ):  # each grid with a mask of its own, the second with one for each band
        fields[0][:, 5:9, 3:30] = hole
        fields[1][1, ::3] = hole
        fields[2][:] = hole
    back = codec.decompress(codec.compress(fields))
    same_shapes(fields, back)
    for x, y in zip(fields, back, strict=True):
        gone = np.isnan if nodata is None else (lambda v: v == nodata)
        np.testing.assert_array_equal(gone(y), gone(x))
    assert 0 < largest_error(fields, back, np.nan if nodata is None else nodata) < 200


def test_several_tiles():
    codec = native_codec((10, 1), (20, 2), (60, 1))
    fields = scene(codec, (530, 270), 1)
    data = codec.compress(fields, psnr=44)
    back = codec.decompress(data)
    same_shapes(fields, back)
    assert psnr_of(fields, back) >= 44
    # tiles do not overlap: the first of 272 rows, coded alone, is the same
    step = {"step": 30.0}
    first = [x[:, : 272 * g // 10] for x, g in zip(fields, (10, 5), strict=False)]
    pair = native_codec((10, 1), (20, 2))
    whole = pair.decompress(pair.compress(fields[:2], **step))
    alone = pair.decompress(pair.compress(first, **step))
    np.testing.assert_array_equal(whole[0][:, :272], alone[0])
    np.testing.assert_array_equal(whole[1][:, :136], alone[1])


def test_lists_tuples_and_the_methods_agree():
    codec = small()
    fields = scene(codec, (40, 40))
    data = codec.compress(fields)
    assert data == codec.compress(fields) == codec.compress(tuple(fields))
    assert data[:4] == b"SLN1"
    for x, y in zip(codec.decompress(data), codec.decompress(data), strict=True):
        np.testing.assert_array_equal(x, y)


def test_fields_are_left_alone():
    codec = small()
    fields = scene(codec, (40, 40))
    before = [x.copy() for x in fields]
    for x in fields:
        x.setflags(write=False)
    codec.compress(fields, psnr=40)
    for x, y in zip(fields, before, strict=True):
        np.testing.assert_array_equal(x, y)


def test_jointly_takes_less_than_apart():
    """Structure that the grids share is paid for once."""
    grids = {10: 3, 20: 3}
    codec = native_codec(*grids.items(), nodata=None)
    rng = np.random.default_rng(3)
    base = np.cumsum(np.cumsum(rng.normal(0, 1, (128, 128)), axis=0), axis=1)
    base = 1500 + 800 * base / np.abs(base).max() + rng.normal(0, 60, base.shape)
    coarse = base.reshape(64, 2, 64, 2).mean(axis=(1, 3))
    fields = [np.stack([np.rint(x * f) for f in (1, 1.2, 1.5)]).astype(np.uint16) for x in (base, coarse)]
    both = len(codec.compress(fields, psnr=46))
    apart = sum(
        len(native_codec((g, 3), nodata=None).compress(x, psnr=46))
        for g, x in zip(grids, fields, strict=True)
    )
    assert both < apart


# -- targets -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("psnr", [34.0, 42.0, 50.0])
def test_psnr_is_reached_over_native_samples(psnr):
    codec = small()
    fields = scene(codec, (150, 170), 5)
    reached = psnr_of(fields, codec.decompress(codec.compress(fields, psnr=psnr)))
    assert psnr <= reached < psnr + 1.0


@pytest.mark.parametrize("rate", [0.5, 1.0, 3.0])
def test_rate_is_never_exceeded(rate):
    codec = small()
    fields = scene(codec, (150, 170), 6)
    bits = len(codec.compress(fields, max_bits_per_pixel=rate)) * 8 / sum(x.size for x in fields)
    assert 0.85 * rate < bits <= rate


@pytest.mark.parametrize("bound", [0, 1, 7, 60])
def test_error_is_never_exceeded(bound):
    codec = small()
    fields = scene(codec, (90, 77), 7)
    assert largest_error(fields, codec.decompress(codec.compress(fields, max_error=bound))) <= bound


def test_error_of_floats():
    codec = small(dtype="float32", nodata=None, scale=1.0)
    fields = scene(codec, (50, 66), 8)
    assert largest_error(fields, codec.decompress(codec.compress(fields, max_error=0.4)), np.nan) <= 0.4


def test_step_and_quality():
    codec = small()
    fields = scene(codec, (90, 77), 7)
    by_step = [len(codec.compress(fields, step=s)) for s in (16, 64, 256)]
    assert by_step == sorted(by_step, reverse=True)
    assert codec.compress(fields, quality=50) == codec.compress(fields, step=64) == codec.compress(fields)


def test_constant_bands_reach_their_psnr():
    for dtype in ("uint16", "float32"):
        codec = native_codec((10, 1), (20, 1), dtype=dtype, nodata=None, scale=1.0)
        fields = [np.full((1, 20, 20), 900, dtype), np.arange(100).reshape(1, 10, 10).astype(dtype)]
        back = codec.decompress(codec.compress(fields, psnr=40))
        assert largest_error(fields, back, np.nan) < 10


# -- what does not fit -------------------------------------------------------------------------------------------------


def test_bands_without_gsd():
    codec = open_codec("lin", bands=[Band("a", gsd=10), Band("b")])
    with pytest.raises(
        CodecError, match=r"need a gsd each, finest first; got \[\('a', 10\), \('b', None\)\]"
    ):
        codec.compress([np.ones((1, 8, 8), np.uint16), np.ones((1, 4, 4), np.uint16)])
    with pytest.raises(CodecError, match="need a gsd each"):
        families(open_codec("lin", bands=["a"]))


def test_bands_in_another_order():
    codec = native_codec((20, 1), (10, 1))
    with pytest.raises(CodecError, match=r"finest first; got \[\('B20m0', 20\), \('B10m0', 10\)\]"):
        families(codec)


@pytest.mark.parametrize("name", ["dct", "zstd", "jpeg2000"])
def test_other_chains_have_one_grid(name):
    codec = open_codec(name, bands=[Band("a", gsd=10), Band("b", gsd=20)])
    with pytest.raises(CodecError, match="codes bands of one grid; open 'lin', or a bundle of it"):
        codec.compress([np.ones((1, 8, 8), np.uint16), np.ones((1, 4, 4), np.uint16)])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda f: f[:2], r"has bands on 3 grids; got 2 fields"),
        (lambda f: f[:0], r"has bands on 3 grids; got 0 fields"),
        (lambda f: [f[0], f[1][0], f[2]], r"field 1: codec 'lin' takes .* 2 bands \(B20m0, B20m1\); got shape \(10, 12\)"),
        (lambda f: [f[0], f[1][:1], f[2]], r"field 1: .* got shape \(1, 10, 12\)"),
        (lambda f: [f[0], f[1], f[2][:, :0]], r"field 2: .* whole cells"),
        (lambda f: [f[0], f[1][:, :9], f[2]], r"grid 1 has \(9, 12\) pixels; \(10, 12\) of its size cover the 19 x 23"),
        (lambda f: [f[0], f[1].astype(float), f[2]], r"field 1: .* takes uint16; got float64"),
        (lambda f: [f[0], f[1] > 3, f[2]], r"field 1: .* takes real numbers; got dtype bool"),
    ],
)  # fmt: skip
def test_fields_that_do_not_fit(change, text):
    codec = small()
    with pytest.raises(FieldError, match=text):
        codec.compress(change(scene(codec, (19, 23))))


def test_nan_and_infinity_are_no_values():
    codec = small(dtype="float32", nodata=-9999.0)
    fields = scene(codec, (19, 23))
    fields[1][0, 0, 0] = np.inf
    with pytest.raises(FieldError, match="NaN or infinite values outside its mask"):
        codec.compress(fields)


def test_targets_that_make_no_sense():
    codec = small()
    fields = scene(codec, (19, 23))
    with pytest.raises(OptionError, match=r"of several grids has no option 'roi'; it takes psnr, .* step"):
        codec.compress(fields, roi=np.ones((19, 23), bool), roi_weight=0.5)
    with pytest.raises(CodecError, match="one target at a time"):
        codec.compress(fields, psnr=40, step=3)
    with pytest.raises(CodecError, match=r"no step reaches max_bits_per_pixel=0\.001"):
        codec.compress(fields, max_bits_per_pixel=0.001)


# -- bytes -------------------------------------------------------------------------------------------------------------


@functools.cache
def coded():
    codec = small()
    fields = scene(codec, (40, 50), 9)
    return codec, codec.compress(fields)


def forged(data, body=None, **changes):
    """The same bytes with another header or body, and a right checksum."""
    n = struct.unpack_from("<I", data, 8)[0]
    head = json.loads(data[12 : 12 + n]) | changes
    text = json.dumps({k: v for k, v in head.items() if v is not None}).encode()
    return sealed(text, data[12 + n :] if body is None else body)


def sealed(text, body):
    rest = struct.pack("<I", len(text)) + text + body
    return b"SLN1" + struct.pack("<I", zlib.crc32(rest)) + rest


def test_the_header():
    _, data = coded()
    n = struct.unpack_from("<I", data, 8)[0]
    head = json.loads(data[12 : 12 + n])
    assert set(head) == {"space", "shapes", "masks", "joint"}
    assert (head["shapes"], head["joint"]) == ([[2, 40, 50], [2, 20, 25], [1, 7, 9]], [0, 1])


def test_every_damage_is_noticed():
    codec, data = coded()
    for bad in damaged(data, 3, 100):
        with pytest.raises(CorruptDataError):
            codec.decompress(bad)


@settings(LAW, max_examples=150)
@given(st.data())
def test_changes_behind_a_right_checksum(draw):
    """Bytes that an attacker wrote: another error never, a field of the declared shapes at most."""
    codec, data = coded()
    n = 4 + struct.unpack_from("<I", data, 8)[0]
    body = bytearray(data[8:])
    for _ in range(draw.draw(st.integers(1, 4))):
        body[draw.draw(st.integers(0, len(body) - 1))] = draw.draw(st.integers(0, 255))
    if draw.draw(st.booleans()):
        del body[draw.draw(st.integers(n, len(body))) :]
    bad = data[:4] + struct.pack("<I", zlib.crc32(body)) + bytes(body)
    try:
        back = codec.decompress(bad)
    except CorruptDataError:
        return
    assert all(y.ndim == 3 for y in back)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"shapes": [[2, 40, 50], [2, 20, 25]]}, "which cannot be"),
        ({"shapes": [[2, 40, 50], [2, 20, 25], [2, 7, 9]]}, "which cannot be"),
        ({"shapes": [[2, 40, 50], [2, 20, 25], [1, 0, 9]]}, "which cannot be"),
        ({"shapes": [[2, 40, 50], [2, 20, 25], [1, -7, 9]]}, "which cannot be"),
        ({"shapes": [[2, 40, 50], [2, 20, 25.0], [1, 7, 9]]}, "which cannot be"),
        ({"shapes": [[2, 40, 50], [2, 21, 25], [1, 7, 9]]}, r"grid 1 has \(21, 25\) pixels; \(20, 25\)"),
        ({"shapes": [[2, 40, 50], [2, 20, 25], [1, 10**6, 10**6]]}, "at most 268435456 are coded"),
        ({"shapes": [[2, 40, 50], [2, 20, 25], [1, 7, 900]]}, "the mask inflates|do not hold|the tiles end"),
        ({"shapes": [[2, 41, 50], [2, 21, 25], [1, 7, 9]]}, "the mask inflates"),
        ({"shapes": None}, "not readable"),
        ({"shapes": 3}, "not readable"),
        ({"shapes": "ab"}, "which cannot be|not readable"),
        ({"masks": [[1, 10**9], [0, 0], [0, 0]]}, "the mask inflates|inflate|the sizes"),
        ({"masks": [[10**12, 4], [0, 0], [0, 0]]}, "which cannot be"),
        ({"masks": [["1", 4], [0, 0], [0, 0]]}, "which cannot be"),
        ({"masks": [[1, -4], [0, 0], [0, 0]]}, "which cannot be"),
        ({"masks": [[1], [0, 0], [0, 0]]}, "which cannot be"),
        ({"masks": []}, "which cannot be"),
        ({"joint": [0]}, "the tiles end|sizes"),
        ({"joint": [0, 1, 2]}, "grid 2 has"),
        ({"joint": [1]}, "which cannot be"),
        ({"joint": []}, "which cannot be"),
        ({"joint": [0, 0]}, "which cannot be"),
        ({"joint": [0, 3]}, "which cannot be"),
        ({"joint": 0}, "not readable"),
        ({"joint": [[0]]}, "which cannot be|not readable"),
        ({"space": "sha256:0"}, "the bytes are of space sha256:0, codec 'lin' is sha256:"),
        ({"space": None}, "the bytes are of space None"),
    ],
)  # fmt: skip
def test_forged_headers(changes, text):
    codec, data = coded()
    with pytest.raises(CorruptDataError, match=text):
        codec.decompress(forged(data, **changes))


def test_forged_bodies():
    codec, data = coded()
    n = struct.unpack_from("<I", data, 8)[0]
    body = data[12 + n :]
    for cut in (0, 1, len(body) - 1):
        with pytest.raises(CorruptDataError):
            codec.decompress(forged(data, body[:cut]))
    with pytest.raises(CorruptDataError, match="the tiles end at byte"):
        codec.decompress(forged(data, body + b"\0"))
    for text in (b"[" * 60_000, b"[]", b"3", b"{", b"\xff", b'{"space": ' + b"9" * 5000 + b"}"):
        with pytest.raises(CorruptDataError, match="the header is not readable"):
            codec.decompress(sealed(text, body))


def test_tiles_swapped():
    """A payload of another tile's shape does not go into the place of this one."""
    codec = native_codec((10, 1), nodata=None)
    one, other = (codec.compress(scene(codec, s)) for s in ((20, 30), (30, 20)))
    n = struct.unpack_from("<I", other, 8)[0]
    with pytest.raises(
        CorruptDataError, match=r"a tile decodes to \(1, 30, 20\); its place has \(1, 20, 30\)"
    ):
        codec.decompress(forged(one, other[12 + n :]))


@settings(LAW, max_examples=40)
@example(b"SLN1")
@given(st.binary(max_size=200))
def test_garbage(data):
    codec = small()
    with pytest.raises(CorruptDataError):
        codec.decompress(b"SLN1" + data)
    with pytest.raises(
        CorruptDataError, match=r"not b'SLC1'; compress\(\) did not write them|checksum|header"
    ):
        codec.decompress(data)


def test_another_space():
    _, data = coded()
    other = small(step=32.0)
    with pytest.raises(
        CorruptDataError, match=r"the bytes are of space sha256:.*open the codec of that space"
    ):
        other.decompress(data)
    plain_codec = open_codec("dct", bands=["a"])
    with pytest.raises(CorruptDataError, match="open the codec of that space"):
        plain_codec.decompress(data)


def test_the_space_is_all_that_a_reader_needs():
    """gsd is no part of the space: bytes decode with a codec of the same space whose bands have none."""
    codec, data = coded()
    bands = [Band(b.name, b.data_type, nodata=b.nodata, scale=b.scale) for b in codec.bands]
    bare = open_codec("lin", bands=bands, mean=1300.0, unit=1.0, step=64.0)
    assert bare.space == codec.space
    for x, y in zip(bare.decompress(data), codec.decompress(data), strict=True):
        np.testing.assert_array_equal(x, y)


# -- one result on every machine ---------------------------------------------------------------------------------------


def digest(dtype="uint16"):
    """SHA-256 of the bytes of a scene and of what they decode to."""
    codec = small(dtype=dtype, nodata=0 if dtype == "uint16" else None)
    data = codec.compress(scene(codec, (61, 93), 11), psnr=44)
    h = hashlib.sha256(data)
    for y in codec.decompress(data):
        h.update(y.tobytes())
    return h.hexdigest()


@needs_numba
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_plain_and_compiled_agree(dtype):
    compiled = digest(dtype)
    with plain():
        assert digest(dtype) == compiled


@needs_numba
def test_a_process_without_numba_gives_the_same_bytes():
    code = (
        "import sys; sys.path[:0] = ['tests', 'tests/bytestring']; import test_native as t; print(t.digest())"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env={**os.environ, "STAC_LATENT_NO_NUMBA": "1"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == digest()
