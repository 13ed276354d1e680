"""The residual of one tile: every pixel within its bound, whatever the field, the base and the machine."""

from __future__ import annotations

import importlib.util
import json
import math
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stac_latent.errors import CodecError, CorruptDataError, FieldError
from stac_latent.field.error_bound import ErrorBound, within
from stac_latent.spec import Band
from stac_latent.stages.residual import entropy
from stac_latent.stages.residual.entropy import Decoder, Encoder
from stac_latent.stages.residual.payload import decode_residual, encode_residual, largest_size
from stac_latent.stages.residual.scan_order import passes
from stac_latent.stages.transform.kernels import COMPILED

TYPES = ("uint8", "int8", "uint16", "int16", "int32", "uint32", "float32", "float64")
FIELDS = ("noise", "constant", "smooth", "extreme", "checker", "sparse", "tiny", "huge")
BASES = ("itself", "blurred", "zero", "wild")


def field_of(kind: str, dtype: str, shape: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    """A field of a type that shows one way to be difficult."""
    t = np.dtype(dtype)
    whole = t.kind in "iu"
    low, high = (np.iinfo(t).min, np.iinfo(t).max) if whole else (-1e38, 1e38)
    _, h, w = shape
    ramp = (
        np.add.outer(np.sin(np.arange(h) / 7), np.arange(w) / 50)[None] + np.arange(shape[0])[:, None, None]
    )
    x = {
        "noise": lambda: rng.uniform(max(low, -3e4), min(high, 3e4), shape),
        "constant": lambda: np.full(shape, min(high, 77)),
        "smooth": lambda: 30 * ramp,
        "extreme": lambda: rng.choice([low, high, 0, 1], shape),
        "checker": lambda: np.where(np.indices(shape).sum(axis=0) % 2, high, low),
        "sparse": lambda: np.where(rng.random(shape) < 0.02, min(high, 1000), 0),
        "tiny": lambda: rng.integers(0, 3, shape) * (1 if whole else 5e-324 if dtype == "float64" else 1e-45),
        "huge": lambda: ramp * (1 if whole else 1e300 if dtype == "float64" else 1e37),
    }[kind]()
    return np.clip(np.rint(x) if whole else x, low if whole else -np.inf, high if whole else np.inf).astype(t)


def base_of(kind: str, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a lossy chain may have made of a field."""
    if kind == "itself":
        return x.copy()
    if kind == "zero":
        return np.zeros_like(x)
    if kind == "wild":
        return rng.permutation(x.ravel()).reshape(x.shape)
    with np.errstate(all="ignore"):
        y = (x.astype(np.float64) + np.roll(x, 1, axis=2)) / 2
    return np.nan_to_num(y).astype(x.dtype)


@settings(max_examples=40, deadline=None)
@given(
    dtype=st.sampled_from(TYPES),
    kind=st.sampled_from(FIELDS),
    base=st.sampled_from(BASES),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 40)),
    bound=st.sampled_from([0, 0.4, 1, 7, 300, 1e-3, 1e35, "0.001%", "1%", "30%"]),
    holes=st.sampled_from([0.0, 0.3, 1.0]),
    seed=st.integers(0, 2**31),
)
def test_every_pixel_is_within_its_bound(dtype, kind, base, shape, bound, holes, seed):
    rng = np.random.default_rng(seed)
    bands = [Band(f"b{i}", dtype) for i in range(shape[0])]
    x = field_of(kind, dtype, shape, rng)
    start = base_of(base, x, rng)
    valid = rng.random((1, *shape[1:])) >= holes
    goal = ErrorBound.of(bound, bands)
    data = encode_residual(x, start, valid, goal, bands)
    y = decode_residual(data, start, valid, bands)
    assert y.dtype == x.dtype
    assert goal.broken(x, y, valid, bands) is None
    if bound == 0 and x.dtype.kind == "f":
        m = np.broadcast_to(valid, x.shape)
        assert x[m].tobytes() == y[m].tobytes()
    assert len(data) <= largest_size(bands, shape[1] * shape[2])


@pytest.mark.parametrize("bound", [0, 0.5, "1%"])
def test_infinite_values_and_negative_zeros_come_back(bound):
    band = [Band("a", "float32", nodata=math.nan)]
    x = np.linspace(-3, 3, 400, dtype=np.float32).reshape(1, 20, 20)
    x[0, 3, 4], x[0, 5, 6], x[0, 7, 7] = np.inf, -np.inf, -0.0
    y = decode_residual(
        encode_residual(x, np.zeros_like(x), None, ErrorBound.of(bound, band), band),
        np.zeros_like(x),
        None,
        band,
    )
    assert ErrorBound.of(bound, band).broken(x, y, np.ones(x.shape, bool), band) is None
    assert np.array_equal(np.isinf(x), np.isinf(y))
    if bound == 0:
        assert x.tobytes() == y.tobytes()


def test_bands_may_have_types_and_bounds_of_their_own():
    bands = [Band("count", "uint8"), Band("level", "float32")]
    rng = np.random.default_rng(1)
    x = np.stack([rng.integers(0, 255, (30, 50)), rng.normal(0, 1, (30, 50))]).astype(np.float32)
    goal = ErrorBound.of({"count": 2, "level": "0.5%"}, bands)
    base = np.zeros_like(x)
    y = decode_residual(encode_residual(x, base, None, goal, bands), base, None, bands)
    assert np.abs(x[0] - y[0]).max() <= 2
    assert (np.abs(x[1].astype(float) - y[1]) <= 0.005 * np.abs(x[1].astype(float))).all()


def test_a_valid_pixel_never_becomes_nodata():
    bands = [Band("a", "int16", nodata=-5)]
    x = np.random.default_rng(0).integers(-9, 0, (1, 40, 40)).astype(np.int16)
    valid = x != -5
    base = np.full_like(x, -5)
    y = decode_residual(encode_residual(x, base, valid, ErrorBound.of(3, bands), bands), base, valid, bands)
    assert not (y[valid] == -5).any()


def test_values_that_the_type_cannot_hold_are_refused():
    bands = [Band("B02", "uint16")]
    x = np.full((1, 8, 8), -37, np.int32)
    with pytest.raises(
        FieldError, match="band 'B02' holds -37, which its stored type uint16 cannot within the error bound"
    ):
        encode_residual(x, x.astype(np.uint16), None, ErrorBound.of(1, bands), bands)


def test_a_base_within_the_bound_costs_a_checksum():
    bands = [Band("a", "int16")]
    x = np.random.default_rng(0).integers(-9, 9, (1, 64, 64)).astype(np.int16)
    assert len(encode_residual(x, x + np.int16(1), None, ErrorBound.of(1, bands), bands)) == 5


def test_a_copied_neighbour_costs_next_to_nothing():
    bands = [Band("a", "uint16")]
    coarse = np.random.default_rng(0).integers(0, 4000, (1, 32, 32)).astype(np.uint16)
    x = coarse.repeat(2, axis=1).repeat(2, axis=2)
    alone, twice = (
        len(encode_residual(v, np.zeros_like(v), None, ErrorBound.of(0, bands), bands)) for v in (coarse, x)
    )
    assert twice < 1.1 * alone + 100


@pytest.mark.parametrize("bound", [0, 4, "1%"])
@pytest.mark.parametrize("factor", [3, 6])
def test_bands_enlarged_by_repeating_pixels_cost_what_the_small_ones_do(factor, bound):
    bands = [Band("a", "uint16"), Band("b", "uint16")]
    coarse = np.random.default_rng(0).integers(1, 4000, (2, 40, 40)).astype(np.uint16)
    x = coarse.repeat(factor, axis=1).repeat(factor, axis=2)[:, 2:, 1:]
    valid = np.ones((1, *x.shape[1:]), bool)
    valid[0, 7, 9] = False
    goal = ErrorBound.of(bound, bands)
    small, large = (
        encode_residual(v, np.zeros_like(v), m, goal, bands) for v, m in ((coarse, None), (x, valid))
    )
    assert len(large) < 1.1 * len(small) + 500
    y = decode_residual(large, np.zeros_like(x), valid, bands)
    assert goal.broken(x, y, valid, bands) is None
    assert (y[:, 7, 9] == 0).all()


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_changed_payloads_are_refused_or_decode_to_the_shape(data):
    bands = [Band("a", "uint16"), Band("b", "uint16")]
    rng = np.random.default_rng(5)
    x = np.cumsum(rng.integers(-9, 10, (2, 24, 24)), axis=2).astype(np.uint16)
    payload = bytearray(encode_residual(x, x // 8 * 8, None, ErrorBound.of(1, bands), bands))
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(payload)))
    try:
        y = decode_residual(bytes(payload[:cut]), x // 8 * 8, None, bands)
    except CorruptDataError:
        return
    assert y.shape == x.shape


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 1), (2, 2), (33, 65), (64, 64), (256, 256)])
def test_passes_visit_each_pixel_once_after_its_neighbours(shape):
    seen = np.zeros(shape[0] * shape[1], int)
    for p in passes(*shape):
        if p.kind >= 0:
            assert seen[p.near].all()
            assert seen[p.far].all()
        seen[p.at] += 1
    assert (seen == 1).all()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), size=st.integers(0, 6000), spread=st.integers(0, 22))
def test_tokens_round_trip(seed, size, spread):
    rng = np.random.default_rng(seed)
    k = rng.integers(-(2**spread), 2**spread + 1, size)
    bins = rng.integers(0, entropy.ROOT_BIN + 1, size)
    exact = rng.random(size) < 0.01
    coder = Encoder()
    for part in np.array_split(np.arange(size), 3):
        coder.add(k[part], bins[part], exact[part])
    reader = Decoder(*coder.finish())
    for part in np.array_split(np.arange(size), 3):
        got, lost = reader.take(bins[part])
        assert np.array_equal(lost, exact[part])
        assert np.array_equal(got[~lost], k[part][~lost])
    reader.end()


@pytest.mark.skipif(not COMPILED, reason="without numba there is one form alone")
def test_the_compiled_and_the_plain_form_agree():
    code = (
        "import numpy as np, zlib\n"
        "from stac_latent.field.error_bound import ErrorBound\n"
        "from stac_latent.spec import Band\n"
        "from stac_latent.stages.residual.payload import decode_residual, encode_residual\n"
        "rng = np.random.default_rng(3)\n"
        "for t in ('uint16', 'float32', 'float64'):\n"
        "    bands = [Band('a', t), Band('b', t)]\n"
        "    x = np.cumsum(rng.normal(0, 9, (2, 70, 90)), axis=2).clip(0).astype(t)\n"
        "    for e in (0, 3, '2%'):\n"
        "        b = (x // 16 * 16).astype(t)\n"
        "        data = encode_residual(x, b, None, ErrorBound.of(e, bands), bands)\n"
        "        print(zlib.crc32(data), zlib.crc32(decode_residual(data, b, None, bands).tobytes()))\n"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PATH": "", **extra},
        ).stdout
        for extra in ({}, {"STAC_LATENT_NO_NUMBA": "1"})
    ]
    assert runs[0] == runs[1]
    assert len(runs[0].split()) == 18


def golden():
    """The module that wrote the golden payloads."""
    path = Path(__file__).parents[1] / "golden" / "make_residual.py"
    spec = importlib.util.spec_from_file_location("make_residual", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", golden().CASES)
def test_what_was_written_stays_readable(name):
    """Payloads and CRC-32 of what they decode to are committed; encoders may change, these bytes may not."""
    make = golden()
    dtype, bound = make.CASES[name]
    truth, base, valid = make.tile(dtype)
    data = (make.FOLDER / f"{name}.bin").read_bytes()
    y = decode_residual(data, base, valid, make.bands(dtype))
    assert zlib.crc32(y.tobytes()) == json.loads((make.FOLDER / "crc32.json").read_text())[name]
    assert ErrorBound.of(bound, make.bands(dtype)).broken(truth, y, valid, make.bands(dtype)) is None


def test_bounds_are_read_from_numbers_texts_and_mappings():
    bands = [Band("a"), Band("b")]
    assert str(ErrorBound.of("2%", bands)) == "2%"
    assert ErrorBound.of({"a": 0, "*": "5"}, bands).values == (0.0, 5.0)
    for bad in (-1, "x", math.nan, math.inf, "100%"):
        with pytest.raises(CodecError, match="expected a number from 0 on"):
            ErrorBound.of(bad, bands)
    with pytest.raises(CodecError, match="error_bound names c; the bands are a, b"):
        ErrorBound.of({"c": 1}, bands)
    with pytest.raises(CodecError, match="nothing for b; name them, or give '\\*'"):
        ErrorBound.of({"a": 1}, bands)


def test_differences_of_wide_integers_do_not_wrap():
    low, high = np.array([np.iinfo("int64").min]), np.array([np.iinfo("int64").max])
    assert not within(low, high, 10.0, relative=False)[0]
    assert within(low, low + 1, 1.0, relative=False)[0]


def test_another_base_than_the_encoders_is_refused():
    bands = [Band("a", "uint16")]
    x = np.arange(900, dtype=np.uint16).reshape(1, 30, 30)
    for e in (0, 5):
        data = encode_residual(x, x + np.uint16(3), None, ErrorBound.of(e, bands), bands)
        with pytest.raises(
            CorruptDataError, match="the base decodes to other pixels than when it was written"
        ):
            decode_residual(data, x + np.uint16(4), None, bands)


def test_a_payload_has_no_byte_too_many():
    """What neither the fold nor the pixels ask for is refused, not passed over."""
    bands = [Band("v", data_type="float32", nodata=None)]
    field = np.kron(np.arange(256, dtype=np.float32).reshape(1, 16, 16) ** 2, np.ones((1, 2, 2), np.float32))
    field[0, :2, :2] = np.inf
    base = np.full_like(field, 7)
    payload = encode_residual(field, base, None, ErrorBound.of(0.5, bands), bands)
    assert payload[0] == payload[5] == 1
    at = 8 + int.from_bytes(payload[6:8], "little")
    head = struct.Struct("<BBIIIII")
    groups, lanes, side, exact, raw, bits, words = head.unpack_from(payload, at)
    parts, start = [], at + head.size
    for size in (side, exact, raw):
        parts.append(payload[start : start + size])
        start += size
    known = zlib.decompress(parts[1])
    more = zlib.compress(
        (int.from_bytes(known[:4], "little") + 1).to_bytes(4, "little") + known[4:] + bytes(4)
    )

    def with_parts(side, exact, raw):
        sizes = head.pack(groups, lanes, len(side), len(exact), len(raw), bits, words)
        return payload[:at] + sizes + side + exact + raw + payload[start:]

    assert with_parts(*parts) == payload
    assert np.isinf(decode_residual(payload, base, None, bands)[0, :2, :2]).all()
    for wrong, said in (
        (payload[:5] + b"\x02" + payload[6:], r"a fold that starts with b'\\x02' cannot be"),
        (with_parts(parts[0], parts[1], parts[2] + bytes(1)), f"{bits} bits in {raw + 1} bytes"),
        (with_parts(parts[0], more, parts[2]), "more exact values than pixels that ask for them"),
    ):
        with pytest.raises(CorruptDataError, match=said):
            decode_residual(wrong, base, None, bands)


def test_rounding_to_the_stored_type_counts_in_the_bound():
    bands = [Band("a", "float32")]
    x = np.random.default_rng(0).uniform(200, 300, (1, 40, 40))
    base = np.zeros(x.shape, np.float32)
    for e in (1e-4, "0.001%"):
        goal = ErrorBound.of(e, bands)
        y = decode_residual(encode_residual(x, base, None, goal, bands), base, None, bands)
        assert goal.broken(x, y, np.ones(x.shape, bool), bands) is None
    with pytest.raises(FieldError, match="which its stored type float32 cannot within the error bound"):
        encode_residual(x, base, None, ErrorBound.of(0, bands), bands)
