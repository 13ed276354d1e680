"""Coded chunks as they are stored: the very bytes, one request each, and what is wrong told before it is decoded."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import zarr
from core_support import BANDS
from google_crc32c import value as crc32c
from zarr.storage import MemoryStore

from stac_latent import open_codec
from stac_latent.codec.registry import remember
from stac_latent.cube.grid.tiling import lattice_grid
from stac_latent.errors import CorruptDataError
from stac_latent.store.zarr.group import GroupOptions, create, open_arrays
from stac_latent.store.zarr.payloads import PayloadReader
from stac_latent.testing import make_field

PER = 16
"""Chunks of a shard: 2 rows of 8, of a scene of 70 x 300 cells in chunks of 35 x 30."""


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Path of a store, its codec and its latents."""
    codec = remember(open_codec("lin", bands=list(BANDS), step=500.0))
    grid = lattice_grid("EPSG:32633", (10, 0, 400_000, 0, -10, 5_200_000), (560, 2400), codec.stride)
    path = tmp_path_factory.mktemp("payloads") / "s.zarr"
    latent = codec.encode(make_field(BANDS, (560, 2400)), upto="latent")
    create(path, codec, grid, {}, GroupOptions(mask_bands=0)).latent[:] = latent
    return path, codec, latent


@pytest.fixture
def shard(stored, tmp_path):
    """A copy of the first shard's file in a store of its own, and a function that opens a reader."""
    import shutil

    path = tmp_path / "s.zarr"
    shutil.copytree(stored[0], path)
    return path / "latent/c/0/0/0", lambda: PayloadReader(open_arrays(str(path)).latent)


def reader_of(stored, **options):
    return PayloadReader(open_arrays(str(stored[0])).latent, **options)


def resealed(data, chunk, offset, length, per=PER):
    """The shard with another entry of its index, and the index's checksum made anew."""
    index = bytearray(data[-16 * per - 4 : -4])
    struct.pack_into("<QQ", index, 16 * chunk, offset, length)
    return data[: -16 * per - 4] + bytes(index) + struct.pack("<I", crc32c(bytes(index)))


def test_the_bytes_of_each_chunk(stored):
    _, codec, latent = stored
    reader = reader_of(stored)
    for y, x in [(0, 0), (0, 7), (0, 8), (1, 3), (1, 9), (1, 1)]:
        part = latent[:, 35 * y : 35 * y + 35, 30 * x : 30 * x + 30]
        assert reader.read(y, x) == codec.entropy_encode(part)


def test_two_requests_and_then_one(stored, monkeypatch):
    reader, seen = reader_of(stored), []
    honest = reader._get
    monkeypatch.setattr(reader, "_get", lambda key, part: seen.append(part) or honest(key, part))
    reader.read(0, 0)
    assert len(seen) == 2
    reader.read(1, 1)
    assert len(seen) == 3, "the index is kept"
    assert len(reader.read(1, 9)) < 100_000
    assert len(seen) == 5


def test_indexes_are_let_go(stored):
    reader = reader_of(stored, indexes=1)
    reader.read(0, 0)
    reader.read(0, 9)
    assert "latent/c/0/0/1" in reader._indexes
    assert len(reader._indexes) == 1


def test_what_it_reads(stored, tmp_path):
    codec = stored[1]
    grid = lattice_grid("EPSG:32633", (10, 0, 400_000, 0, -10, 5_200_000), (64, 64), codec.stride)
    plain = create(tmp_path / "p.zarr", codec, grid, {}, GroupOptions("plain", 0)).latent
    assert not PayloadReader.reads(plain)
    with pytest.raises(TypeError, match=r"p\.zarr/latent holds no coded chunks"):
        PayloadReader(plain)
    simple = zarr.create_array(MemoryStore(), shape=(4, 4), chunks=(2, 2), dtype="u1")
    assert not PayloadReader.reads(simple)
    sharded = zarr.create_array(MemoryStore(), shape=(4, 4), chunks=(2, 2), shards=(4, 4), dtype="u1")
    assert not PayloadReader.reads(sharded)
    assert PayloadReader.reads(open_arrays(str(stored[0])).latent)
    assert open_arrays(str(stored[0])).payloads is not None


def test_missing_and_truncated_shards(shard):
    file, reader = shard
    data = file.read_bytes()
    for keep in (0, 3, 16 * PER + 3):
        file.write_bytes(data[:keep])
        with pytest.raises(CorruptDataError, match=r"less than its index; it was truncated|is empty"):
            reader().read(0, 0)
    for keep in (16 * PER + 4, 5000, len(data) - 1):
        file.write_bytes(data[:keep])
        with pytest.raises(
            CorruptDataError, match=r"c/0/0/0: the checksum of the index does not match; it was changed"
        ):
            reader().read(0, 0)
    file.unlink()
    with pytest.raises(
        CorruptDataError, match=r"latent/c/0/0/0 is missing; the store is incomplete, fetch or write it again"
    ):
        reader().read(0, 0)
    assert reader().read(0, 9)


@pytest.mark.parametrize(
    ("offset", "length", "text"),
    [
        (2**64 - 1, 2**64 - 1, r"lacks chunk \(0, 1\); the store is incomplete, write it again"),
        (0, 4, r"lacks chunk \(0, 1\)"),
        (0, 2**40, r"declares 1099511627776 bytes at 0 for chunk \(0, 1\), which cannot be; it was changed"),
        (2**60, 50, r"declares 50 bytes at 1152921504606846976 for chunk \(0, 1\), which cannot be"),
        (10**6, 5000, r"cannot be read: .* it was truncated or changed"),
        (500, 10**6, r"ends within chunk \(0, 1\); it was truncated"),
    ],
)
def test_indexes_that_cannot_be(shard, offset, length, text):
    file, reader = shard
    data = file.read_bytes()
    file.write_bytes(resealed(data, 1, offset, length))
    with pytest.raises(CorruptDataError, match=text):
        reader().read(0, 1)
    assert reader().read(0, 0) == PayloadReader.read(reader(), 0, 0)


def test_bytes_of_another_chunk_do_not_pass_for_it(shard, stored):
    """An index that points elsewhere gives bytes that the codec refuses, or that are a chunk as a whole."""
    file, reader = shard
    file.write_bytes(resealed(file.read_bytes(), 1, 7, 900))
    with pytest.raises(CorruptDataError, match="it is no lin bitstream"):
        stored[1].decode(reader().read(0, 1))


def test_threads_share_a_reader(stored):
    from concurrent.futures import ThreadPoolExecutor

    reader = reader_of(stored)
    places = [(y, x) for y in range(2) for x in range(10)] * 4
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda p: reader.read(*p), places))
    assert got[:20] * 4 == got
    assert np.unique([len(g) for g in got]).size > 1
