"""What is written of a cube keeps its meaning: other tools come to the values that ``physical=True`` gives."""

from __future__ import annotations

import importlib.util
import tracemalloc

import dask
import dask.array as da
import numpy as np
import pytest
import rasterio
import xarray as xr
from core_support import make_scene
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

import stac_latent
from stac_latent.errors import CatalogError, GridError
from stac_latent.spec import Band

NETCDF = pytest.param(
    ".nc",
    marks=pytest.mark.skipif(importlib.util.find_spec("h5py") is None, reason="h5py is not installed"),
)
KINDS = {
    "sentinel-2": ("uint16", 0, 1e-4, 0.0, None),
    "sentinel-2 with offset": ("uint16", 0, 1e-4, -0.1, None),
    "landsat": ("uint16", 0, 2.75e-5, -0.2, None),
    "radar": ("float32", float("nan"), 1.0, 0.0, "dB"),
    "elevation": ("int16", -32768, 1.0, 0.0, "m"),
    "whole numbers": ("uint8", None, 1.0, 0.0, None),
}


def cube_of(bands, shape=(70, 90), *, dates=1, seed=0, rotation=0.0):
    """A cube as ``load`` gives it, of bands with a hole where they have nodata."""
    from stac_latent.cube.asset_choice import band_attrs

    rng = np.random.default_rng(seed)
    box = GeoBox(shape, rasterio.Affine(10, 0, 500_000, 0, -10, 5_000_000), "EPSG:32633").rotate(rotation)
    data = {}
    for band in bands:
        values = rng.integers(1, 120, (dates, *shape)).astype(band.data_type)
        if band.nodata is not None:
            values[:, 20:31, 40:47] = band.nodata
        data[band.name] = (("time", *box.dimensions), values, band_attrs(band))
    times = np.array("2024-06-01T10:00", "M8[ns]") + np.arange(dates) * np.timedelta64(1, "D")
    return xr.Dataset(data, coords={**xr_coords(box), "time": times})


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    """An encoded Item for each kind of sensor: the scene, and where its catalogue is."""
    made = {}
    for name, (dtype, nodata, scale, offset, unit) in KINDS.items():
        folder = tmp_path_factory.mktemp("scene")
        rng = np.random.default_rng(1)
        field = rng.integers(5, 200, (2, 64, 72)).astype(dtype)
        if nodata is not None:
            field[:, 10:20, 30:44] = nodata
        fields = {"raster:scale": scale, "raster:offset": offset} | ({} if unit is None else {"unit": unit})
        scene = make_scene(folder, field, nodata=nodata, fields=fields)
        bands = [
            Band(k, dtype, nodata, scale, offset, unit, common_name=k if scale != 1 else None)
            for k in ("red", "nir")
        ]
        codec = stac_latent.open_codec("zstd", bands=bands)
        (made[name],) = stac_latent.encode(scene.item, codec, folder / "out")
    return made


@pytest.mark.parametrize("suffix", [NETCDF, ".zarr"])
@pytest.mark.parametrize("kind", KINDS)
def test_files_of_arrays_open_as_physical_values(items, tmp_path, kind, suffix):
    path = tmp_path / f"cube{suffix}"
    stac_latent.save(stac_latent.load(items[kind], chunks={"x": 32, "y": 32}), path)
    physical = stac_latent.load(items[kind], physical=True)
    with xr.open_dataset(path, **({} if suffix == ".nc" else {"engine": "zarr"})) as got:
        for name, want in physical.data_vars.items():
            np.testing.assert_allclose(got[name].values, want.values, rtol=1e-6)
            assert got[name].attrs["units"] == (KINDS[kind][4] or "1")
        assert got.odc.geobox == physical.odc.geobox
    with xr.open_dataset(
        path, mask_and_scale=False, **({} if suffix == ".nc" else {"engine": "zarr"})
    ) as got:
        np.testing.assert_array_equal(got["red"].values, stac_latent.load(items[kind])["red"].values)
        assert got["red"].dtype == KINDS[kind][0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_geotiff_says_what_its_values_are(items, tmp_path, kind):
    dtype, nodata, scale, offset, unit = KINDS[kind]
    cube = stac_latent.load(items[kind], chunks={"x": 32, "y": 32})
    assert stac_latent.save(cube, tmp_path / "cube.tif") == [tmp_path / "cube.tif"]
    physical = stac_latent.load(items[kind], physical=True)
    with rasterio.open(tmp_path / "cube.tif") as src:
        assert (src.scales, src.offsets, src.units) == ((scale,) * 2, (offset,) * 2, (unit,) * 2)
        assert src.descriptions == ("red", "nir")
        np.testing.assert_equal(src.nodata, nodata)
        assert src.dtypes == (dtype, dtype)
        assert src.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert src.tags()["datetime"] == "2024-06-01T10:00:00Z"
        assert GeoBox(src.shape, src.transform, src.crs) == physical.odc.geobox
        values = src.read(masked=True)
    got = values.astype("f8") * scale + offset
    for layer, want in zip(got, physical.data_vars.values(), strict=True):
        np.testing.assert_allclose(layer.filled(np.nan), want.values[0], rtol=1e-6)


def test_rioxarray_keeps_the_scale(items, tmp_path):
    """Without ``save``: the names of the attributes are the ones that it knows."""
    import rioxarray  # noqa: F401 - registers .rio

    for kind in ("landsat", "sentinel-2 with offset"):
        cube = stac_latent.load(items[kind])
        cube.isel(time=0, drop=True).rio.to_raster(tmp_path / "cube.tif")
        with rasterio.open(tmp_path / "cube.tif") as src:
            assert (src.scales[0], src.offsets[0], src.nodata) == (*KINDS[kind][2:4], 0)
            assert src.descriptions == ("red", "nir")


@pytest.mark.parametrize("kind", KINDS)
def test_a_cube_decodes_as_a_file_does(items, kind):
    got, want = xr.decode_cf(stac_latent.load(items[kind])), stac_latent.load(items[kind], physical=True)
    np.testing.assert_allclose(got["red"].values, want["red"].values, rtol=1e-6)
    assert {"scale_factor", "add_offset"} & set(want["red"].attrs) == set()


# -- GeoTIFF -------------------------------------------------------------------------------------------------


def test_overviews_are_averages_of_numbers_and_nearest_of_classes(tmp_path):
    shape = (1200, 1100)
    numbers, classes = Band("n", scale=1e-4), Band("c", "uint8")
    checked = np.indices(shape).sum(axis=0) % 2 * 100
    cube = cube_of([numbers, classes], shape)
    for name in cube.data_vars:
        cube[name].values[0] = checked
    for name, overviews, want in (
        ("n", None, {50}), ("c", None, {0, 100}), ("c", "average", {50}), ("n", "nearest", {0, 100}),
    ):  # fmt: skip
        stac_latent.save(cube[[name]], tmp_path / "o.tif", overwrite=True, overviews=overviews)
        with rasterio.open(tmp_path / "o.tif", overview_level=0) as src:
            assert src.shape == (600, 550)
            assert set(np.unique(src.read(1)[:500, :500])) <= want


def test_each_date_is_a_file(tmp_path):
    cube = cube_of([Band("red", nodata=0)], dates=3)
    paths = stac_latent.save(cube, tmp_path / "a.tif")
    assert [p.name for p in paths] == [f"a_2024-06-0{d}.tif" for d in (1, 2, 3)]
    assert sorted(tmp_path.iterdir()) == paths
    for i, path in enumerate(paths):
        with rasterio.open(path) as src:
            np.testing.assert_array_equal(src.read(1), cube["red"].values[i])
    with pytest.raises(CatalogError, match=r"a_2024-06-01.tif exists; pass overwrite=True \(--overwrite\)"):
        stac_latent.save(cube, tmp_path / "a.tif")
    stac_latent.save(cube, tmp_path / "a.tif", overwrite=True)
    hours = cube.assign_coords(
        time=np.array("2024-06-01T10:00", "M8[ns]") + np.arange(3) * np.timedelta64(1, "h")
    )
    assert stac_latent.save(hours, tmp_path / "h.tif")[1].name == "h_2024-06-01T110000.tif"
    same = cube.assign_coords(time=np.repeat(np.array("2024-06-01", "M8[ns]"), 3))
    with pytest.raises(CatalogError, match="2 of 3 dates are the same to the second"):
        stac_latent.save(same, tmp_path / "s.tif")


@pytest.mark.parametrize("name", ["a.tif", "a.nc", "a.zarr"])
def test_folders_of_others_are_not_replaced(tmp_path, name):
    cube = cube_of([Band("red", nodata=0)], dates=1)
    kept = tmp_path / name / "kept.txt"
    kept.parent.mkdir()
    kept.write_text("mine")
    with pytest.raises(
        CatalogError, match=rf"{name} is a folder, and no Zarr v3 store that could be replaced"
    ):
        stac_latent.save(cube, tmp_path / name, overwrite=True)
    assert kept.read_text() == "mine"


@pytest.mark.parametrize(
    ("bands", "dtype", "nodata"),
    [
        ([Band("a", "uint8", 0), Band("b", "uint16", 0)], "uint16", 0),
        ([Band("a", "uint16", 0), Band("b", "uint16", 65535)], "int32", -(2**31)),
        ([Band("a", "uint8", None), Band("b", "int16", -1)], "int32", -(2**31)),
        ([Band("a", "float32", -9999), Band("b", "float32", float("nan"))], "float32", float("nan")),
        ([Band("a", "uint8", 0), Band("b", "float32", float("nan"))], "float32", float("nan")),
    ],
)
def test_bands_that_differ_share_a_type_and_a_nodata_value(tmp_path, bands, dtype, nodata):
    cube = cube_of(bands)
    stac_latent.save(cube, tmp_path / "a.tif")
    with rasterio.open(tmp_path / "a.tif") as src:
        assert src.dtypes == (dtype, dtype)
        np.testing.assert_equal(src.nodata, nodata)
        got = src.read(masked=True)
    for layer, band in zip(got, bands, strict=True):
        values = cube[band.name].values[0]
        empty = np.zeros(values.shape, bool)
        if band.nodata is not None:
            empty = np.isnan(values) if np.isnan(band.nodata) else values == band.nodata
        np.testing.assert_array_equal(np.ma.getmaskarray(layer), empty)
        np.testing.assert_array_equal(layer.data[~empty], values[~empty])


def test_a_rotated_grid_stays_rotated(tmp_path):
    cube = cube_of([Band("red", nodata=0)], rotation=20.0)
    stac_latent.save(cube, tmp_path / "a.tif")
    with rasterio.open(tmp_path / "a.tif") as src:
        assert abs(src.transform.b) > 1
        np.testing.assert_allclose(src.transform, cube.odc.geobox.transform)


def test_channels_of_latents_are_bands(items, tmp_path):
    raw = stac_latent.search("catalogs/sample/catalog.json", ids=["spyndex-s2-sample"])
    cells = stac_latent.load(raw, asset="embedding", upto="latent")
    stac_latent.save(cells, tmp_path / "a.tif")
    stac_latent.save(cells, tmp_path / "a.zarr")
    with rasterio.open(tmp_path / "a.tif") as src:
        assert (src.count, src.descriptions[3]) == (32, "latent 3")
        np.testing.assert_array_equal(src.read(), cells["latent"].values[0])
    again = xr.open_zarr(tmp_path / "a.zarr")
    assert again.stac_latent.space == cells.stac_latent.space
    np.testing.assert_array_equal(again["latent"].values, cells["latent"].values)


def test_properties_along_time_are_kept(tmp_path):
    cube = cube_of([Band("red", nodata=0)], dates=2).assign(clouds=("time", np.array([5.5, 7.0])))
    first, _ = stac_latent.save(cube, tmp_path / "a.tif")
    stac_latent.save(cube, tmp_path / "a.zarr")
    with rasterio.open(first) as src:
        assert (src.count, src.tags()["clouds"]) == (1, "5.5")
    assert xr.open_zarr(tmp_path / "a.zarr")["clouds"].values.tolist() == [5.5, 7.0]


# -- what is refused, and what is left ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "name", "error", "text"),
    [
        (lambda c: c, "a.png", CatalogError, r"ends with .tif \(Cloud-Optimized GeoTIFF\), .nc \(NetCDF-4\) or .zarr; got 'a.png'"),
        (lambda c: c, "a", CatalogError, "got 'a'"),
        (lambda c: c.drop_vars(["spatial_ref", "y", "x"]), "a.tif", GridError, "the cube has no CRS"),
        (lambda c: c.drop_vars(["spatial_ref", "y", "x"]), "a.zarr", GridError, "the cube has no CRS"),
        (lambda c: c.drop_vars("red"), "a.tif", CatalogError, "the cube has no variables"),
        (lambda c: c.red.values, "a.tif", CatalogError, "a Dataset or a DataArray; got ndarray"),
        (lambda c: c.expand_dims(("p", "q")), "a.tif", CatalogError, "a GeoTIFF holds"),
        (lambda c: (c.astype("f4") / 2).assign_attrs(), "a.tif", CatalogError, "carries the scale of uint16 values"),
        (lambda c: c.assign(b=c.red.astype("u4").assign_attrs(_FillValue=7)), "a.tif", CatalogError, r"one nodata value .* \(red: 0, b: 7\)"),
        (lambda c: c.astype("c8"), "a.nc", CatalogError, "NetCDF holds no complex numbers, as red"),
        (lambda c: c.isel(x=[0, 1, 5, 9]), "a.tif", GridError, "x are not evenly spaced: number 2 is 500055, and .* leads to 500025"),
        (lambda c: c.isel(y=[3, 2, 0]), "a.zarr", GridError, r"y are not evenly spaced: number 2 .* cube.isel\(y=slice\(0, 100, 2\)\)"),
        (lambda c: c.isel(time=[]), "a.tif", CatalogError, "the cube has no pixels: time of length 0"),
        (lambda c: c.isel(x=[], y=[]), "a.zarr", CatalogError, "the cube has no pixels: y, x of length 0"),
        (lambda c: c.rename(red="s/red"), "a.zarr", CatalogError, r"'s/red' has a '/' .* cube.rename\(\{'s/red': 's_red'\}\)"),
        (lambda c: c.assign(b=c.red.assign_attrs(_FillValue=-9999)), "a.zarr", CatalogError, "'b' is uint16, and its nodata value -9999 is none"),
    ],
)  # fmt: skip
def test_what_cannot_be_written_is_refused(tmp_path, change, name, error, text):
    with xr.set_options(keep_attrs=True):
        cube = change(cube_of([Band("red", nodata=0, scale=1e-4)]))
    with pytest.raises(error, match=text):
        stac_latent.save(cube, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("step", [1, -1, 3])
def test_slices_keep_their_place(tmp_path, step):
    cube = cube_of([Band("red", nodata=0)]).isel(x=slice(None, None, step), y=slice(None, None, step))
    (path,) = stac_latent.save(cube, tmp_path / "a.tif")
    with rasterio.open(path) as src:
        assert src.xy(1, 2) == (cube.x.values[2], cube.y.values[1])


def test_netcdf_without_its_writer_is_refused_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(
        CatalogError, match=r"h5py, which is not installed: pip install h5py, or write a \.zarr"
    ):
        stac_latent.save(cube_of([Band("red", nodata=0)]), tmp_path / "a.nc")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [NETCDF, ".zarr"])
def test_attributes_and_types_that_a_format_lacks_are_written(tmp_path, suffix):
    cube = cube_of([Band("red", nodata=0)])
    cube = cube.assign(seen=(cube.red > 5).assign_attrs(_FillValue=0)).assign_attrs(
        a={"b": 1}, n=None, l=["x"]
    )
    if suffix == ".zarr":
        cube = cube.assign(both=cube.red.astype("c8").assign_attrs(_FillValue=np.uint16(0)))
    path = tmp_path / f"a{suffix}"
    stac_latent.save(cube, path)
    with xr.open_dataset(
        path, mask_and_scale=False, **({} if suffix == ".nc" else {"engine": "zarr"})
    ) as got:
        for name, variable in cube.data_vars.items():
            np.testing.assert_array_equal(got[name].values, variable.values)
        assert got.attrs["a"] == ('{"b": 1}' if suffix == ".nc" else {"b": 1})


def test_overviews_are_for_geotiff(tmp_path):
    cube = cube_of([Band("red", nodata=0)])
    with pytest.raises(CatalogError, match=r"overviews='average' is for GeoTIFF; 'a.zarr' has none"):
        stac_latent.save(cube, tmp_path / "a.zarr", overviews="average")
    with pytest.raises(CatalogError, match="overviews='mean' is unknown; expected one of average, bilinear"):
        stac_latent.save(cube, tmp_path / "a.tif", overviews="mean")


@pytest.mark.parametrize("suffix", [".tif", NETCDF, ".zarr"])
def test_nothing_is_left_of_what_fails(tmp_path, suffix):
    def fail(_):
        raise CatalogError("the payload is damaged")

    cube = cube_of([Band("red", nodata=0)]).chunk(y=16)
    broken = cube.assign(red=cube.red.copy(data=cube.red.data.map_blocks(fail, dtype="uint16")))
    path = tmp_path / f"a{suffix}"
    with pytest.raises(CatalogError, match="the payload is damaged"):
        stac_latent.save(broken, path)
    assert list(tmp_path.iterdir()) == []
    stac_latent.save(cube, path)
    before = path.stat()
    with pytest.raises(CatalogError, match="the payload is damaged"):
        stac_latent.save(broken, path, overwrite=True)
    assert (path.stat(), list(tmp_path.iterdir())) == (before, [path])


@pytest.mark.parametrize("suffix", [".tif", ".zarr"])
def test_a_large_cube_is_written_in_pieces(tmp_path, suffix):
    """No more than a few of its chunks are there at once."""

    def block(block_info=None):
        return np.ones(block_info[None]["chunk-shape"], "uint16")

    shape = (1, 8192, 2048)
    data = da.map_blocks(block, chunks=((1,), (1024,) * 8, (1024,) * 2), dtype="uint16")
    box = GeoBox(shape[1:], rasterio.Affine(10, 0, 500_000, 0, -10, 5_000_000), "EPSG:32633")
    cube = xr.Dataset({"a": (("time", "y", "x"), data)}, coords=xr_coords(box))
    calls = []
    stac_latent.save(cube.isel(y=slice(8)), tmp_path / f"first{suffix}")  # what is imported for it
    tracemalloc.start()
    with dask.config.set(num_workers=2):
        stac_latent.save(cube, tmp_path / f"a{suffix}", progress=lambda *args: calls.append(args))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < cube["a"].nbytes / 2
    assert calls[-1][1] == calls[-1][2] > 16
