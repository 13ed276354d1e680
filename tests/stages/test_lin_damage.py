"""Damaged payloads of the ``lin`` chain: a clear error, or the very values; never a crash, a hang or a huge array."""

from __future__ import annotations

import itertools
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lin_support import LAW, plain, resealed

from stac_latent import open_codec
from stac_latent.errors import CorruptDataError, FieldError
from stac_latent.spec import Band
from stac_latent.stages.lin.lifting import analyse, levels_of
from stac_latent.stages.lin.payload import GAINS, STEPS, pack, unpack
from stac_latent.stages.lin.stage import Lin, join, split
from stac_latent.stages.lin.tile import TileCoder
from stac_latent.stages.lin.tile_source import FromField
from stac_latent.stages.transform.kernels import COMPILED
from stac_latent.testing import make_field
from stac_latent.window import Window

BANDS = [Band(f"b{i}", nodata=0, scale=1e-4) for i in range(3)]
CODER = TileCoder(np.tile(np.eye(3, dtype=np.float32), (7, 1, 1)))


def payload_of(shape=(40, 56), step=60.0, gains=None, seed=2):
    field = make_field(BANDS, shape, seed).astype(np.float32)
    analyse(field, levels_of(*shape))
    return CODER.code(CODER.prepare([field], gains=gains), step)


SMALL = payload_of((17, 22), 200.0)
RICH = payload_of()
WEIGHED = payload_of(gains=np.array([1, 2, 0.5], np.float32))


def refuses(data, text="."):
    with pytest.raises(CorruptDataError, match=text):
        CODER.decode_tile(data)


def attempt(data):
    """The tile, or None where it is refused."""
    try:
        (tile,) = CODER.decode_tile(data)
    except CorruptDataError:
        return None
    assert np.isfinite(tile).all()
    assert len(tile) == 3
    assert max(tile.shape[1:]) <= 256
    return tile.copy()


@pytest.mark.parametrize("payload", [SMALL, WEIGHED], ids=["small", "weighed"])
def test_every_cut_is_noticed(payload):
    for n in range(len(payload)):
        refuses(payload[:n])
    refuses(payload + b"\0", "the checksum does not match")


def test_every_cut_is_noticed_behind_the_checksum():
    for n in range(16, len(SMALL)):
        refuses(resealed(SMALL[:n]))
    refuses(resealed(SMALL + b"\0"), "the header declares")


@pytest.mark.parametrize("payload", [SMALL, RICH, WEIGHED], ids=["small", "rich", "weighed"])
def test_every_changed_bit_is_noticed(payload):
    rng = np.random.default_rng(0)
    for at in range(min(len(payload), 400)):
        bad = bytearray(payload)
        bad[at] ^= 1 << rng.integers(8)
        refuses(bytes(bad))


@settings(LAW, max_examples=150)
@given(data=st.data(), payload=st.sampled_from([SMALL, RICH, WEIGHED]))
def test_changes_behind_the_checksum(data, payload):
    """Into headers, side information, raw bits and words alike; both forms make the same of it."""
    bad = bytearray(payload)
    places = st.integers(7, min(len(bad) - 1, 60)) | st.integers(7, len(bad) - 1)
    for _ in range(data.draw(st.integers(1, 4))):
        bad[data.draw(places)] = data.draw(st.integers(0, 255))
    bad = resealed(bytes(bad))
    tile = attempt(bad)
    if COMPILED and len(payload) < 1000:
        with plain():
            again = attempt(bad)
        assert (tile is None) == (again is None)
        assert tile is None or np.array_equal(tile, again)


@settings(LAW, max_examples=60)
@given(body=st.binary(max_size=300), head=st.integers(0, 16))
def test_anything_behind_the_checksum(body, head):
    attempt(resealed(SMALL[:3] + bytes(4) + SMALL[7 : 7 + head] + body))


def test_other_bytes_are_told_from_a_payload():
    refuses(b"", "it is no lin bitstream")
    refuses(b"SLC1" + bytes(60), r"starts with b'SLC', not b'SL\\x01'; it is no lin bitstream")
    refuses(bytes(3000), "it is no lin bitstream")


@pytest.mark.parametrize(
    ("offset", "form", "value", "text"),
    [
        (7, "<H", 0, "no pixels"),
        (9, "<H", 0, "no pixels"),
        (7, "<H", 257, r"declares 257 x 56 pixels and 3 levels, which cannot be"),
        (9, "<H", 65535, r"declares 40 x 65535 pixels and 3 levels, which cannot be"),
        (11, "<B", 0x35, r"40 x 56 pixels and 5 levels, which cannot be"),
        (11, "<B", 0x73, "the header declares"),
        (12, "<f", 0.0, "a step of 0"),
        (12, "<f", -4.0, "a step of -4"),
        (12, "<f", np.nan, "a step of nan"),
        (12, "<f", np.inf, "a step of inf"),
        (12, "<f", STEPS[1] * 2, "a step of"),
        (12, "<f", STEPS[0] / 2, "a step of"),
    ],
)
def test_headers_that_cannot_be(offset, form, value, text):
    bad = bytearray(RICH)
    struct.pack_into(form, bad, offset, value)
    refuses(resealed(bytes(bad)), text)


@pytest.mark.parametrize("gain", [0.0, -1.0, np.nan, np.inf, GAINS[0] / 2, GAINS[1] * 2])
def test_gains_that_cannot_be(gain):
    bad = bytearray(WEIGHED)
    struct.pack_into("<f", bad, 16 + 4, gain)
    refuses(resealed(bytes(bad)), "a band's gain is not")
    refuses(resealed(WEIGHED[:20]), "do not hold the gains of 3 bands")


def test_sizes_that_do_not_end():
    refuses(resealed(RICH[:16] + b"\xff" * 40), "a size in the header does not end")
    refuses(resealed(RICH[:16] + b"\x80" * 3), "a size in the header does not end")
    refuses(resealed(RICH[:16] + b"\xff\xff\xff\xff\x7f" * 3), r"the header declares \d+ bytes of 31")


def test_side_information_that_cannot_be():
    head, side, _ = unpack(RICH, 3)
    bad = head.__class__(head.height, head.width, head.levels, head.step, head.side_bits - 1, head.coded)
    refuses(pack(bad, side[:-1]), "the side information ends too soon")
    bad = head.__class__(head.height, head.width, head.levels, head.step, head.side_bits + 1, head.coded)
    refuses(
        pack(bad, np.append(side, np.uint8(0))),
        r"the side information ends at bit \d+ of \d+; it was changed",
    )
    side = np.zeros(head.side_bits, np.uint8)
    refuses(pack(head, side), "the side information ends at|do not end where")


def test_what_is_declared_is_not_allocated():
    """A payload of some bytes costs no more memory than its tile, whatever its header says."""
    bad = bytearray(RICH)
    struct.pack_into("<HH", bad, 7, 65535, 65535)
    bad = resealed(bytes(bad))
    tiles = struct.pack("<4sIIBB", b"SLT\x01", 2**31, 2**31, 32, 32) + bytes(200)
    many = struct.pack("<4sIIBB", b"SLT\x01", 2**18, 32, 32, 32) + bytes(4 * 2**13)
    stage = Lin(CODER.basis)
    tracemalloc.start()
    refuses(bad)
    for data in (tiles, many):
        with pytest.raises(CorruptDataError, match=r"cells, which .* bytes cannot hold"):
            stage.inverse(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**23


FIELD = make_field(BANDS, (21, 30), 5)
BYTES = open_codec("lin", bands=BANDS).compress(FIELD)


@settings(LAW, max_examples=150)
@given(data=st.data())
def test_changes_of_a_field_behind_both_checksums(data):
    """Header, mask and payload of what compress() gave; the payload's checksum made anew, too, where it is still there."""
    codec = open_codec("lin", bands=BANDS)
    bad = bytearray(BYTES)
    for _ in range(data.draw(st.integers(1, 3))):
        bad[data.draw(st.integers(8, len(bad) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.just(len(bad)) | st.integers(8, len(bad)))
    body = bytes(bad[8:cut])
    at = body.find(b"SL\x01")
    if at >= 0 and len(body) > at + 7:
        body = body[:at] + resealed(body[at:])
    bad = bytes(bad[:4]) + struct.pack("<I", zlib.crc32(body)) + body
    try:
        back = codec.decompress(bad)
    except CorruptDataError:
        return
    assert back.shape[0] == 3
    assert back.dtype == FIELD.dtype


# -- several tiles -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def several():
    codec = open_codec("lin", bands=BANDS)
    field = make_field(BANDS, (392, 400), 1)
    return codec, codec.entropy_encode(codec.encode(field, upto="symbols"))


def test_tiles_are_joined_and_split(several):
    codec, data = several
    parts, cut = split(data)
    assert cut == ((49, 50), (28, 28))
    assert len(parts) == 4
    assert join(parts, *cut) == data
    assert split(parts[0]) == ([parts[0]], None)
    shapes = [codec.decode(p).shape for p in parts]
    assert shapes == [(3, 224, 224), (3, 224, 176), (3, 168, 224), (3, 168, 176)]


def test_damaged_tiles(several):
    codec, data = several
    for decode in (codec.decode, codec.entropy_decode):

        def refused(bad, text, decode=decode):
            with pytest.raises(CorruptDataError, match=text):
                decode(bad)

        rng = np.random.default_rng(0)
        for n in (3, 4, 8, 11, 12, 13, 14, 29, 30, 31, 500, *rng.integers(0, len(data), 20)):
            refused(data[:n], ".")
        refused(data[:9], "less than a header; truncated")
        refused(data[:20], r"declares 49 x 50 cells, which 20 bytes cannot hold")
        refused(data[:-1], r"the tiles end at byte \d+ of \d+; truncated or changed")
        for at in (*range(30), *rng.integers(30, len(data), 20)):
            bad = bytearray(data)
            bad[at] ^= 1 << rng.integers(8)
            refused(bytes(bad), ".")
        parts, (cells, tile) = split(data)
        refused(join(parts, (50, 49), tile), "a tile is .*; its place has")
        refused(join(parts, cells, (28, 29)), "a tile is .*; its place has")
        refused(join([parts[1], *parts[1:]], cells, tile), "a tile is .*; its place has")
        refused(join(parts, (0, 50), tile), "declares 0 x 50 cells")
        refused(join(parts, cells, (0, 28)), "declares tiles of 0 x 28 cells; they have 1 to 64 a side")
        refused(join(parts, cells, (28, 65)), "declares tiles of 28 x 65 cells; they have 1 to 64 a side")
        refused(join([b"", *parts[1:]], cells, tile), "it is no lin bitstream")


def test_tiles_of_any_size_are_read():
    """Where tiles lie is told by the payload, whatever the encoder's rule; a side has up to 512 pixels."""
    codec = open_codec("lin", bands=BANDS)
    stage = codec.tail
    field = make_field(BANDS, (64, 528), 2)
    cut = ((0, 40, 64), (0, 512, 528))
    parts, wanted = [], np.empty_like(field)
    for y0, y1 in itertools.pairwise(cut[0]):
        for x0, x1 in itertools.pairwise(cut[1]):
            source = FromField(field[:, y0:y1, x0:x1], None, codec.stages[0], stage.nest)
            _, grids = source.tile(Window.of(((0, (y1 - y0) // 8), (0, (x1 - x0) // 8))), pixels=False)
            parts.append(stage.code(stage.prepare(grids), 8.0))
            wanted[:, y0:y1, x0:x1] = codec.decode(parts[-1])
    data = join(parts, (8, 66), (5, 64))
    assert np.array_equal(codec.decode(data), wanted)
    assert np.abs(wanted.astype(int) - field).max() < 400
    half = codec.decode_reduced(data, 1)
    assert half.shape == (3, 32, 264)


def test_tiles_of_other_codecs(several):
    _, data = several
    stage = Lin(np.tile(np.eye(2, dtype=np.float32), (7, 1, 1)))
    with pytest.raises(CorruptDataError):
        stage.inverse(data)
    with pytest.raises(CorruptDataError, match="is not made of cells of 8"):
        Lin(CODER.basis).inverse(SMALL)


def test_what_cannot_be_written_is_refused():
    with pytest.raises(FieldError, match=r"at most 268435456 pixels at once; got 65536 x 65536 cells"):
        join([b"", b""], (65536, 65536), (32, 32))
    wide = np.broadcast_to(np.ones(1, np.uint16), (3, 2**15, 2**14))
    with pytest.raises(
        FieldError, match=r"at most 268435456 pixels a band; got \(32768, 16384\): code it in parts"
    ):
        open_codec("lin", bands=BANDS).compress(wide)
    big = np.zeros((3, 520, 8), np.float32)
    with pytest.raises(FieldError, match=r"tiles of 1 to 512 pixels a side; got \(520, 8\)"):
        CODER.prepare([big])
    with pytest.raises(FieldError, match="gains of bands must be"):
        CODER.prepare([big[:, :8]], gains=np.array([1, 0, 1], np.float32))
    with pytest.raises(FieldError, match="the step must be"):
        CODER.code(CODER.prepare([big[:, :8]]), STEPS[1] * 2)
