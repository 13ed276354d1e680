"""``stac_latent.Latent`` in Zarr 3 and xarray: metadata, shards, edges, parts, other processes, and what is refused."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
import xarray as xr
import zarr
from zarr.codecs import ShardingCodec

from stac_latent import Latent, open_codec
from stac_latent.arrays.array_chunk import decode_chunk
from stac_latent.arrays.settings import Settings
from stac_latent.codec.registry import remember
from stac_latent.codec.shipped import dct
from stac_latent.errors import CodecError, CorruptDataError, FieldError, OptionError
from stac_latent.store.zarr.codec import LatentZarrCodec

BOUND = 0.25


def scene(*shape, dtype="f4"):
    """A smooth field with a little noise."""
    y, x = np.mgrid[: shape[-2], : shape[-1]]
    noise = np.random.default_rng(0).normal(0, 0.05, shape)
    return (280 + 10 * np.sin(y / 9) * np.cos(x / 11) + noise).astype(dtype)


def made(x, *, store=None, **options):
    """An array of such values; whole chunks are written."""
    given = {"chunks": (*x.shape[:-2], 24, 32), "serializer": Latent(error_bound=BOUND), "compressors": None}
    a = zarr.create_array({} if store is None else store, shape=x.shape, dtype=x.dtype, **given | options)
    a[...] = x
    return a


def worst(a, b):
    return float(np.abs(np.asarray(a, "f8") - np.asarray(b, "f8")).max())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compressors": "auto"},
        {"shards": (2, 24, 64)},
        {"fill_value": np.nan},
        {"fill_value": 281},
        {"chunks": (1, 24, 40)},
        {"config": {"order": "F"}},
        {"filters": [zarr.codecs.TransposeCodec(order=(0, 2, 1))]},
    ],
)
def test_arrays_keep_the_bound(options):
    x = scene(2, 24, 40)
    x[1, :9, :9] = 281
    a = made(x, **options)
    assert worst(a[...], x) <= BOUND
    assert worst(a[1, 5:20:2, 7], x[1, 5:20:2, 7]) <= BOUND
    if options.get("fill_value") == 281:
        np.testing.assert_array_equal(a[...] == 281, x == 281)


def test_chunks_that_were_not_written_and_those_of_fill_alone_take_no_bytes():
    store = {}
    a = zarr.create_array(
        store, shape=(64, 64), chunks=(16, 16), dtype="i2", fill_value=-9, serializer=Latent(error_bound=1)
    )
    a[:16, :16], a[16:32, :16] = scene(16, 16, dtype="i2"), -9
    assert sorted(k for k in store if k.startswith("c/")) == ["c/0/0"]
    assert (a[16:] == -9).all()
    a.resize((80, 64))
    assert (a[64:] == -9).all()
    a.append(np.full((16, 64), 5, "i2"))
    assert (a[80:] == 5).all()


def test_metadata_are_name_and_options_and_read_in_a_fresh_process(tmp_path):
    x = scene(1, 20, 20)
    a = made(x, store=tmp_path / "a.zarr", serializer=Latent(error_bound="0.1%", band_axis=0))
    (entry,) = json.loads((tmp_path / "a.zarr/zarr.json").read_text())["codecs"]
    assert entry == {
        "name": "stac_latent.pixels",
        "configuration": {"codec": "lin", "error_bound": "0.1%", "band_axis": 0},
    }
    code = f"import zarr; print(zarr.open_array({str(tmp_path / 'a.zarr')!r}, mode='r')[...].sum(dtype='f8').item())"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(out.stdout) == a[...].sum(dtype="f8").item()


@pytest.mark.parametrize(
    "codec",
    [
        Latent(),
        Latent("zstd"),
        Latent("s2-10m-4b", error_bound={"B02": 1, "*": 2}, nodata=0),
        Latent(psnr=np.float32(40), nodata=float("-inf")),
        Latent(error_bound=np.float64(0.5), band_axis=-1),
    ],
)
def test_configurations_come_back_from_json(codec):
    entry = json.loads(json.dumps(codec.to_dict()))
    assert Latent.from_dict(entry) == codec == pickle.loads(pickle.dumps(codec))  # noqa: S301
    assert repr(codec).startswith(f"Latent(codec={codec.settings.codec!r}")


def test_by_name_and_configuration():
    a = made(scene(32, 32), serializer={"name": "stac_latent.pixels", "configuration": {"error_bound": 1}})
    assert repr(a.metadata.codecs[0]) == "Latent(codec='lin', error_bound=1)"


def test_inside_shards_made_by_hand():
    x = scene(32, 64)
    shards = ShardingCodec(chunk_shape=(16, 64), codecs=[Latent(error_bound=BOUND)])
    assert worst(made(x, chunks=(32, 64), serializer=shards)[...], x) <= BOUND


@pytest.mark.parametrize("shards", [None, (1, 32, 64)])
def test_part_of_a_chunk_warns_once_and_whole_ones_do_not(shards):
    x = scene(1, 32, 64)
    a = made(x, chunks=(1, 32, 32), shards=shards)
    if shards is None:
        a[:, :32, 32:] = x[:, :32, 32:]
    with pytest.warns(
        UserWarning, match=r"part of a chunk.*may move.*Write whole chunks \(1 x 32 x 32\)"
    ) as seen:
        a[:, :8, :8] = 0
    assert len(seen) == 1
    assert worst(a[:, 8:], x[:, 8:]) <= 2 * BOUND
    exact = made(x, chunks=(1, 32, 32), serializer=Latent())
    exact[:, :8, :8] = 0
    np.testing.assert_array_equal(exact[:, 8:], x[:, 8:])


def test_what_is_read_bears_no_mark():
    a = made(scene(32, 32), chunks=(32, 32))
    for values in (a[...], a[:8], a[3, 4], a.oindex[[1, 2], [3]], a.vindex[[1, 2], [3, 4]]):
        assert type(values) in (np.ndarray, np.float32)


def test_threads_and_dask():
    x = scene(4, 20, 20)
    a = made(x, chunks=(1, 20, 20))
    results = [None] * 4

    def read(i):
        results[i] = a[i]

    threads = [threading.Thread(target=read, args=(i,)) for i in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    np.testing.assert_array_equal(np.stack(results), a[...])
    dask = pytest.importorskip("dask.array")
    again = pickle.loads(pickle.dumps(a))  # noqa: S301
    lazy = dask.from_array(again, chunks=(2, 20, 20))
    np.testing.assert_array_equal(lazy.compute(scheduler="threads"), a[...])


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_xarray_round_trip(tmp_path, zarr_format):
    from stac_latent.arrays import NumcodecsLatent

    x = scene(3, 20, 24)
    x[0, :5, :5] = np.nan
    ds = xr.Dataset(
        {"t2m": (("time", "y", "x"), x, {"units": "K", "standard_name": "air_temperature"})},
        coords={"time": np.array(["2020-01-01", "2020-01-02", "2020-01-03"], "M8[ns]"), "y": np.arange(20.0)},
    )
    codec = (
        {"serializer": Latent(error_bound=BOUND)}
        if zarr_format == 3
        else {"compressors": NumcodecsLatent(error_bound=BOUND)}
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Consolidated metadata")
        ds.to_zarr(
            tmp_path / "a.zarr", zarr_format=zarr_format, encoding={"t2m": codec | {"chunks": (3, 20, 20)}}
        )
    with xr.open_zarr(tmp_path / "a.zarr") as back:
        assert back.t2m.attrs == ds.t2m.attrs
        assert float(np.abs(back.t2m - ds.t2m).max()) <= BOUND
        np.testing.assert_array_equal(np.isnan(back.t2m), np.isnan(x))
        xr.testing.assert_equal(back.time, ds.time)


def test_xarray_packs_integers(tmp_path):
    x = scene(40, 50)
    x[:5] = np.nan
    encoding = {
        "serializer": Latent(error_bound=3, nodata=-32768),
        "chunks": (32, 32),
        "dtype": "i2",
        "scale_factor": 0.01,
        "add_offset": 280.0,
        "_FillValue": np.int16(-32768),
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Consolidated metadata")
        xr.Dataset({"t": (("y", "x"), x)}).to_zarr(
            tmp_path / "a.zarr", zarr_format=3, encoding={"t": encoding}
        )
    with xr.open_zarr(tmp_path / "a.zarr") as back:
        assert float(np.abs(back.t - x).max()) <= 0.0351
        np.testing.assert_array_equal(np.isnan(back.t), np.isnan(x))


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: Latent("linn"), CodecError, r"no codec 'linn' \(did you mean 'lin'\?\)"),
        (
            lambda: Latent(eror_bound=1),
            OptionError,
            r"Latent\(\) has no option 'eror_bound' \(did you mean 'error_bound'\?\)",
        ),
        (lambda: Latent(psnr=40, step=1), CodecError, "one target at a time; got psnr=40, step=1"),
        (lambda: Latent("dct", psnr=40), CodecError, "codes at the one rate that is part of its space"),
        (lambda: Latent("s2-10m-embed"), CodecError, "is an embedder"),
        (lambda: Latent(error_bound=-1), CodecError, "expected a number from 0 on"),
        (lambda: Latent(error_bound=True), OptionError, "expected a number, or a text"),
        (lambda: Latent(error_bound={"a": 1}), CodecError, "has none of its own: give one bound for all"),
        (
            lambda: Latent("era5-surface", error_bound={"x": 1}),
            CodecError,
            "error_bound names x; the bands are t2m",
        ),
        (lambda: Latent(nodata="x"), OptionError, "nodata='x': expected a number"),
        (lambda: Latent(nodata=10**400), OptionError, "nodata is a whole number of 1329 bits"),
        (lambda: Latent(band_axis="x"), OptionError, "band_axis='x': expected the number of an axis"),
        (lambda: Latent(quality=200), CodecError, "quality must be at least 0 and at most 100"),
        (lambda: Latent(3), OptionError, "codec=3: expected the name of an installed codec"),
        (lambda: Latent("tests"), CodecError, "is a folder; an array names an installed codec"),
    ],
)
def test_wrong_options_are_refused_when_made(make, error, text):
    with pytest.raises(error, match=text):
        make()


@pytest.mark.parametrize(
    ("codec", "shape", "dtype", "text"),
    [
        (Latent(), (4, 4), "M8[s]", "takes numbers of 8 to 64 bits, complex ones and bool; got datetime64"),
        (Latent(), (4, 4), "S5", "View or convert the array"),
        (
            Latent(quality=40),
            (4, 4),
            "f4",
            "counts from the step of codec 'lin', which is one of whole numbers",
        ),
        (Latent(band_axis=-1), (4, 4), "f4", "expected one of their axes, at least 3 of them"),
        (
            Latent("s2-10m-4b"),
            (3, 32, 32),
            "u2",
            r"codes 4 bands \(B02, B03, B04, B08\) of uint16.*hence 3 bands",
        ),
        (Latent("s2-10m-4b"), (4, 32, 32), "f4", "codes 4 bands .* float32"),
    ],
)
@pytest.mark.parametrize("shards", [False, True])
@pytest.mark.filterwarnings("ignore")  # zarr warns of types that are no part of its specification
def test_arrays_that_cannot_be_are_refused_when_made(codec, shape, dtype, text, shards):
    options = {"shape": shape, "chunks": shape, "shards": shape if shards else None, "dtype": dtype}
    with pytest.raises(FieldError, match=text):
        zarr.create_array({}, **options, serializer=codec)


def test_wrong_metadata_are_refused_when_opened(tmp_path):
    made(scene(32, 32), store=tmp_path / "a.zarr")
    path = tmp_path / "a.zarr/zarr.json"
    text = path.read_text()
    for old, new, match in (
        ('"error_bound"', '"eror_bound"', "did you mean 'error_bound'"),
        ('"lin"', '"ln"', "did you mean 'lin'"),
        ('"error_bound": 0.25', '"psnr": 40, "step": 2', "one target at a time"),
    ):
        assert old in text
        path.write_text(text.replace(old, new))
        with pytest.raises((OptionError, CodecError), match=match):
            zarr.open_array(tmp_path / "a.zarr")


def test_damaged_and_foreign_chunks(tmp_path):
    a = made(scene(32, 32), store=tmp_path / "a.zarr", chunks=(32, 32))
    path = tmp_path / "a.zarr/c/0/0"
    data = path.read_bytes()
    decode_chunk(data, Settings())
    for changed in (b"", data[:20], data[:30] + b"x" + data[31:], b"\x28\xb5\x2f\xfd" + data):
        path.write_bytes(changed)
        with pytest.raises(CorruptDataError, match=r"checksum|did not write it"):
            a[...]


def test_the_codec_of_symbols_checks_when_made():
    codec = remember(dct(bands=["a", "b"]))
    serializer = LatentZarrCodec(codec.space, codec.bitstream)
    for shape, dtype in (((5, 16, 16), "i2"), ((128, 16), "i2"), ((128, 4, 4), "bool")):
        with pytest.raises(
            FieldError, match=r"of 128 channels of int16; .* To code pixels, take stac_latent.Latent"
        ):
            zarr.create_array({}, shape=shape, chunks=shape, dtype=dtype, serializer=serializer)


def test_the_codec_of_symbols_warns_of_parts():
    codec = open_codec("lin", bands=["B02"], step=16)
    remember(codec)
    x = np.random.default_rng(0).normal(0, 900, (codec.spec.dimensions, 4, 4)).astype("f4")
    a = zarr.create_array(
        {}, data=x, chunks=x.shape, serializer=LatentZarrCodec(codec.space, codec.bitstream), compressors=None
    )
    with pytest.warns(UserWarning, match="part of a chunk was written in an array of codec 'stac_latent'"):
        a[:, :2, :2] = 0
