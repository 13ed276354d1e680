"""Tiles of ``lin`` whose pixels are repeated: found, coded once, and never at a loss."""

from __future__ import annotations

import copy
from dataclasses import replace

import lin_reference
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lin_support import LAW

from stac_latent import open_codec
from stac_latent.errors import CorruptDataError
from stac_latent.spec import Band
from stac_latent.stages.lin.repeats import Part, find_parts, is_split, join_parts, split_parts
from stac_latent.testing import make_field

BANDS = [Band(f"b{i}", nodata=0, scale=1e-4) for i in range(5)]


def repeated(steps, shape, seed=0, offset=0):
    """A field of five bands, of which each is repeated this many times along both axes."""
    rng, whole = np.random.default_rng(seed), (shape[0] + offset, shape[1] + offset)
    walk = rng.normal(0, 30, whole).cumsum(axis=0).cumsum(axis=1) / 4
    field = [(3000 + walk + rng.normal(0, 40, whole)).clip(1, 9999).astype(np.uint16) for _ in steps]
    rows, columns = np.arange(shape[0]) + offset, np.arange(shape[1]) + offset
    return np.stack([x[np.ix_(rows // s, columns // s)] for x, s in zip(field, steps, strict=True)])


@settings(LAW, max_examples=60)
@given(
    steps=st.lists(st.sampled_from((1, 2, 3, 4, 6, 50)), min_size=1, max_size=5),
    shape=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    offset=st.integers(0, 5),
    masked=st.booleans(),
)
def test_parts_hold_all_that_a_field_has(steps, shape, offset, masked):
    """Every band is in one part; spread again, its own pixels are the field; the bytes tell the same parts."""
    field = repeated(steps, (60, 60), offset=offset)[:, : shape[0], : shape[1]]
    mask = (field % 7 != 0) if masked else None
    parts = find_parts(field, mask)
    if parts is None:
        return
    assert sorted(b for part in parts for b in part.bands) == list(range(len(field)))
    out = np.zeros_like(field)
    for part in parts:
        part.spread(part.gather(field), out)
    valid = np.ones(field.shape, bool) if mask is None else mask
    assert (out[valid] == field[valid]).all()
    payloads = [bytes([i]) * i for i in range(len(parts))]
    back, data = split_parts(join_parts(parts, payloads), len(field), 256)
    assert data == payloads
    for a, b in zip(parts, back, strict=True):
        assert (a.arrays, a.shape) == (b.arrays, b.shape)
        assert np.array_equal(a.rows, b.rows)
        assert np.array_equal(a.columns, b.columns)


def test_pairs_of_pairs_share_a_part_and_others_have_their_own():
    parts = find_parts(repeated((1, 1, 2, 4, 6), (64, 64)), None)
    assert [p.arrays for p in parts] == [((0, 1), (2,), (3,)), ((4,),)]
    assert [(p.rows.size, p.columns.size) for p in parts] == [(64, 64), (11, 11)]


def test_pairs_may_begin_anywhere():
    parts = find_parts(repeated((1, 1, 2, 4, 2), (64, 64), offset=3), None)
    assert [p.arrays for p in parts] == [((0, 1), (2, 4)), ((3,),)]
    assert parts[0].rows[:4].tolist() == [0, 0, 1, 2]


def test_a_field_without_repeats_has_no_parts():
    assert find_parts(make_field(BANDS, (64, 64), 1), None) is None


@pytest.mark.parametrize("steps", [(1, 1, 2, 2, 2), (2, 2, 2, 2, 2), (1, 1, 3, 2, 6), (1, 1, 2, 2, 64)])
@pytest.mark.parametrize("holes", [False, True])
def test_repeated_pixels_cost_less_and_come_back(steps, holes):
    """Fewer bytes at the same PSNR than without parts; nodata stays; both ways of decoding agree with the reference."""
    field = repeated(steps, (40, 40), seed=3)
    if holes:
        field[:, 12:24, :18] = 0
    codec = open_codec("lin", bands=BANDS)
    tail = copy.copy(codec.tail)
    tail.splits = False
    plain = replace(codec, stages=(*codec.stages[:-1], tail))
    less, more = (c.compress(field, psnr=58) for c in (codec, plain))
    assert len(less) < len(more)
    assert ((codec.decompress(less) == 0) == (field == 0)).all()
    fixed = codec.stages[-1].encoder(codec)(field, None if not holes else field != 0)
    assert is_split(fixed)
    pixels = codec.stages[-1].decoder(codec)(fixed)
    assert np.abs(pixels.astype(int) - field)[field > 0].max() < 200
    reference = lin_reference.decode(
        fixed,
        codec.tail.basis,
        codec.tail.model.tensors(),
        codec.stages[0].unit.tolist(),
        codec.stages[0].mean.tolist(),
    )
    assert np.array_equal(np.clip(np.rint(np.array(reference)), 1, 65535).astype(np.uint16), pixels)
    latents = codec.tail.inverse(fixed)
    whole = codec.stages[0].inverse(codec.stages[1].inverse(latents))
    assert np.array_equal(np.clip(np.rint(whole), 1, 65535), pixels)
    assert np.array_equal(codec.tail.decoder(codec)(fixed, [3, 1]), pixels[[3, 1]])


def test_floats_are_the_same_by_any_way():
    """Of floats no bit differs between the way by latents and the short one, of all bands and of some."""
    bands = [Band(f"b{i}", "float32") for i in range(5)]
    codec = open_codec("lin", bands=bands, unit=0.5, step=8.0)
    field = repeated((1, 1, 2, 2, 6), (48, 56), seed=8, offset=1).astype(np.float32) / 7
    payload = codec.tail.encoder(codec)(field, None)
    assert is_split(payload)
    pixels = codec.tail.decoder(codec)(payload)
    assert np.array_equal(codec.decode(codec.tail.inverse(payload)), pixels)
    assert np.array_equal(codec.tail.decoder(codec)(payload, [4, 0]), pixels[[4, 0]])


def test_a_coarse_read_is_the_mean_of_the_fine_one():
    field = repeated((1, 1, 2, 2, 6), (64, 64), seed=5)
    codec = open_codec("lin", bands=BANDS)
    payload = codec.tail.encoder(codec)(field, None)
    fine = codec.tail.decoder(codec)(payload).astype(float).reshape(5, 16, 4, 16, 4).mean(axis=(2, 4))
    coarse = codec.tail.decoder(codec, 2)(payload)
    assert np.sqrt(np.mean((coarse - fine) ** 2)) < 0.3 * fine.std()


def _other(codec):
    """A payload of one band and of another size."""
    coder = codec.tail._coder(Part(((0,),), np.arange(8), np.arange(8), (8, 8)))
    return coder.code(coder.prepare([np.ones((1, 8, 8), np.float32)]), 4.0)


def test_damage_is_named():
    """Flipped bytes fail the checksum; headers that cannot be are refused, whatever their checksum."""
    field = repeated((1, 2, 2, 2, 6), (64, 64), seed=5)
    codec = open_codec("lin", bands=BANDS)
    payload = codec.tail.encoder(codec)(field, None)
    decode = codec.tail.decoder(codec)
    for at in range(4, len(payload), 7):
        damaged = bytearray(payload)
        damaged[at] ^= 4
        with pytest.raises(CorruptDataError, match="checksum"):
            decode(bytes(damaged))
    parts, payloads = split_parts(payload, 5, 256)
    with pytest.raises(CorruptDataError, match="parts of 64 x 64 pixels, which cannot be"):
        split_parts(payload, 1, 256)
    with pytest.raises(CorruptDataError, match="not its bands"):
        decode(join_parts(parts[:1], payloads[:1]))
    with pytest.raises(CorruptDataError, match="a part is"):
        decode(join_parts(parts, [payloads[0], _other(codec)]))


def test_bands_of_several_grids_are_never_in_parts():
    codec = open_codec("lin", bands=BANDS[:2])
    payload = codec.entropy_encode(codec.encode(repeated((1, 4), (48, 48)), upto="symbols"))
    assert is_split(payload)
    with pytest.raises(CorruptDataError, match="bands on several grids is not coded in parts"):
        codec.tail.for_grid(slice(0, 2), (1, 1)).inverse(payload)
