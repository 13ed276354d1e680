"""Adopted embeddings: numbers against the formula and against rasterio and pyarrow, any grid, tables, and bad input."""

from __future__ import annotations

import json

import adopt_support as files
import numpy as np
import odc.stac
import pyarrow as pa
import pyarrow.parquet as pq
import pystac
import pytest
import rasterio
import rasterio.warp
import shapely
import xarray as xr
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

import stac_latent
from stac_latent import adopt, load, load_table, publish, search
from stac_latent.errors import CatalogError, CorruptDataError, GridError, StacLatentError
from stac_latent.store.embeddings import read_embeddings
from stac_latent.store.foreign.arrays import open_array
from stac_latent.store.foreign.axes import axis_names

LAW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
ANY = {"producer": "me", "name": "mine", "version": "1", "when": "2024"}


@pytest.fixture
def aef(tmp_path):
    """A tile of AlphaEarth with its first row in the south, adopted; its numbers, first row in the north."""
    codes = files.alphaearth_codes(3, (64, 40, 50))
    path = files.write_tiff(
        tmp_path / "2024" / "33N" / "tile.tiff", codes, Affine(10, 0, 500_000, 0, 10, 5_000_000), nodata=-128
    )
    items = adopt("alphaearth", path, tmp_path / "catalog")
    return items, files.alphaearth_truth(codes)[:, ::-1], path


# -- numbers


@LAW
@given(data=st.data())
def test_any_quantisation_in_any_layout_loads_as_the_formula(tmp_path_factory, data):
    """Quantise, write in a drawn container and order of axes, adopt, load: the formula's numbers."""
    folder = tmp_path_factory.mktemp("any")
    container = data.draw(st.sampled_from(["tif", "npy", "zarr"]))
    order = ["channel", "y", "x"] if container == "tif" else data.draw(st.sampled_from([["channel", "y", "x"], ["y", "x", "channel"], ["y", "channel", "x"]]))  # fmt: skip
    size = {
        "channel": data.draw(st.integers(1, 5)),
        "y": data.draw(st.integers(1, 9)),
        "x": data.draw(st.integers(2, 9)),
    }
    dtype = data.draw(st.sampled_from(["int8", "uint8", "int16"]))
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    codes = rng.integers(low, high + 1, [size[n] for n in ("channel", "y", "x")], dtype)
    many = data.draw(st.booleans())
    scale = rng.uniform(1e-3, 1, size["channel"] if many else 1)
    offset = rng.uniform(-5, 5, size["channel"] if many else 1)
    power = data.draw(st.sampled_from([1.0, 2.0, 0.5, 3.0]))
    nodata = data.draw(st.sampled_from([None, int(low), 0]))
    upward = data.draw(st.booleans())
    place = Affine(10, 0, 400_000, 0, 10 if upward else -10, 5_000_000)
    fields = {
        "latent:quantization": "linear" if power == 1 else "power", "latent:quantization_scale": scale.tolist(),
        "latent:quantization_offset": offset.tolist(), "latent:dim_order": order, "nodata": nodata,
    }  # fmt: skip
    if power != 1:
        fields["latent:quantization_power"] = power
    stored = codes.transpose([("channel", "y", "x").index(n) for n in order])
    path = folder / f"a.{container}"
    if container == "tif":
        files.write_tiff(path, codes, place)
    elif container == "npy":
        np.save(path, np.ascontiguousarray(stored))
    else:
        import zarr

        zarr.open_group(path, mode="w").create_array("v", data=np.ascontiguousarray(stored))
        fields["latent:array"] = "v"
    more = {} if container == "tif" else {"crs": files.UTM, "transform": list(place)[:6]}
    items = adopt("any", path, folder / "catalog", fields=fields, **ANY, **more)
    found = load(items, upto="latent")["latent"].values[0]
    q = codes.astype(np.float64)
    truth = np.sign(q) * (np.abs(q) * scale.reshape(-1, 1, 1)) ** power + offset.reshape(-1, 1, 1)
    truth = np.where(codes == nodata, np.nan, truth) if nodata is not None else truth
    np.testing.assert_allclose(found, truth[:, ::-1] if upward else truth, rtol=2e-6, atol=1e-5)


def test_real_formula_not_the_common_mistake(aef):
    items, _, path = aef
    found = load(items, upto="latent")["latent"].values[0]
    with rasterio.open(path) as src:
        v = src.read()[:, ::-1].astype(np.float64)
    assert np.nanmax(np.abs(found - np.where(v == -128, np.nan, (v / 127.5) ** 2 * np.sign(v)))) < 1e-6
    assert np.nanmax(np.abs(found - np.where(v == -128, np.nan, v / 127))) > 0.1
    norms = np.linalg.norm(found, axis=0)
    assert abs(np.nanmean(norms) - 1) < 0.01, "vectors of AlphaEarth have length 1"


def test_windows_of_a_file_that_runs_north(aef):
    items, truth, _ = aef
    box = GeoBox((7, 9), Affine(10, 0, 500_100, 0, -10, 5_000_300), files.UTM)
    found = load(items, upto="latent", geobox=box)["latent"].values[0]
    np.testing.assert_allclose(found, truth[:, 10:17, 10:19], rtol=1e-6)
    assert np.isfinite(found).any()


def test_only_rows_of_the_window_are_read(tmp_path, monkeypatch):
    """A NumPy file is read by seeking: a window of 2 of 400 rows takes 1 % of its bytes."""
    codes = np.zeros((400, 100, 8), np.int8)
    np.save(tmp_path / "a.npy", codes)
    array = open_array("npy", str(tmp_path / "a.npy"), axis_names(["y", "x", "channel"]))
    seen = []
    from stac_latent.store.foreign import arrays

    real = arrays.open_binary

    class Counting:
        def __init__(self, file):
            self.file = file

        def read(self, n=-1):
            out = self.file.read(n)
            seen.append(len(out))
            return out

        def __getattr__(self, name):
            return getattr(self.file, name)

    from contextlib import contextmanager

    @contextmanager
    def counted(href):
        with real(href) as file:
            yield Counting(file)

    monkeypatch.setattr(arrays, "open_binary", counted)
    assert array.read(((10, 12), (5, 9))).shape == (8, 2, 4)
    assert sum(seen) == 2 * 100 * 8


# -- other grids


def test_numbers_are_resampled_never_codes(aef, tmp_path):
    """Bilinear on another grid equals the stock reader on a raster of numbers; on codes it would differ."""
    items, truth, _ = aef
    box = GeoBox.from_bbox((500_012, 4_999_950, 500_480, 5_000_390), files.UTM, resolution=17)
    found = load(items, upto="latent", geobox=box, resampling="bilinear")["latent"]
    wanted = [_stock(tmp_path, truth[i], np.nan, box) for i in (0, 63)]
    np.testing.assert_allclose(found.values[0, [0, 63]], wanted, rtol=1e-5, atol=1e-6)
    assert np.isfinite(wanted).any()
    codes = files.alphaearth_codes(3, (64, 40, 50))[:, ::-1]
    wrong = _stock(tmp_path, codes[0], -128.0, box)
    wrong = (wrong / 127.5) ** 2 * np.sign(wrong)
    assert np.nanmax(np.abs(found.values[0, 0] - wrong)) > 0.01


def _stock(folder, plane, nodata, box):
    """One band by odc-stac's own reader of rasters, bilinear; the first row is the northernmost."""
    place = Affine(10, 0, 500_000, 0, -10, 5_000_400)
    path = files.write_tiff(
        folder / f"{len(list(folder.iterdir()))}.tif", plane[None].astype(np.float32), place, nodata=nodata
    )
    item = pystac.Item("a", None, None, pystac.utils.str_to_datetime("2024-01-01T00:00:00Z"), {})
    with rasterio.open(path) as src:
        item.bbox = list(rasterio.warp.transform_bounds(src.crs, "EPSG:4326", *src.bounds))
    item.geometry = shapely.box(*item.bbox).__geo_interface__
    fields = {"proj:code": files.UTM, "proj:shape": list(plane.shape), "proj:transform": list(place)[:6]}
    fields |= {"data_type": "float32", "nodata": "nan" if np.isnan(nodata) else nodata}
    item.stac_extensions = ["https://stac-extensions.github.io/projection/v2.0.0/schema.json"]
    item.add_asset(
        "image",
        pystac.Asset(
            str(path), media_type="image/tiff; application=geotiff", roles=["data"], extra_fields=fields
        ),
    )
    cube = odc.stac.load([item], bands=["image"], geobox=box, resampling="bilinear", nodata=nodata)[
        "image"
    ].values[0]
    return np.where(cube == nodata, np.nan, cube)


@pytest.mark.parametrize("how", ["nearest", "average"])
def test_nodata_stays_nodata(aef, how):
    items, truth, _ = aef
    box = GeoBox((80, 100), Affine(5, 0, 500_000, 0, -5, 5_000_400), files.UTM)
    found = load(items, upto="latent", geobox=box, resampling=how)["latent"].values[0]
    hole = np.repeat(np.repeat(np.isnan(truth), 2, axis=1), 2, axis=2)
    assert np.isnan(found[hole]).all()
    assert np.isfinite(found[~hole]).all()


def test_two_zones_meet_on_one_grid(tmp_path):
    codes = files.alphaearth_codes(1, (64, 30, 30))
    paths = [
        files.write_tiff(tmp_path / "2024" / name / f"{name}.tiff", codes, place, crs, nodata=-128)
        for name, place, crs in (
            ("33N", Affine(100, 0, 765_000, 0, -100, 5_000_000), "EPSG:32633"),
            ("34N", Affine(100, 0, 293_000, 0, -100, 5_000_000), "EPSG:32634"),
        )
    ]
    items = adopt("alphaearth", paths, tmp_path / "catalog")
    with pytest.raises(GridError, match="lie on different lattices"):
        load(items, upto="latent")
    cube = load(
        items, upto="latent", crs="EPSG:3857", resolution=200, resampling="nearest", groupby="solar_day"
    )
    assert cube.sizes["time"] == 1
    share = np.isfinite(cube["latent"].values[0, 0])
    one = load(items[:1], upto="latent", like=cube, resampling="nearest")
    assert share.sum() > np.isfinite(one["latent"].values).sum() / 64 > 100


def test_lattice_is_kept_unless_resampling_is_named(aef):
    items, _, _ = aef
    with pytest.raises(
        GridError, match=r"Other grids load with upto='field', or for embeddings with resampling="
    ):
        load(items, upto="latent", resolution=20)
    with pytest.raises(GridError, match=r"resampling='fancy' is unknown"):
        load(items, upto="latent", resolution=20, resampling="fancy")
    with pytest.raises(CatalogError, match=r"dtype given with upto='latent'"):
        load(items, upto="latent", resampling="nearest", dtype="int8")
    with pytest.raises(CatalogError, match=r"embeddings load with upto='latent'"):
        load(items)


def test_spaces_never_meet(aef, tmp_path):
    items, _, _ = aef
    other = adopt("tessera", files.write_tessera(tmp_path, *files.tessera_codes(0)), tmp_path / "catalog")
    for how in ({}, {"resampling": "nearest", "crs": "EPSG:3857", "resolution": 10}):
        with pytest.raises(CatalogError, match=r"latents of 2 spaces cannot share one cube"):
            load([*items, *other], upto="latent", **how)


# -- with the other verbs


def test_search_publish_and_xarray(aef, tmp_path):
    items, truth, _ = aef
    found = list(search(tmp_path / "catalog" / "catalog.json", kind="embedding"))
    assert [i.id for i in found] == ["tile"]
    table = publish(found, tmp_path / "v.parquet", dtype="float32")
    rows = read_embeddings(tmp_path / "v.parquet")
    good = np.isfinite(truth[0])
    assert len(rows) == good.sum()
    first = rows.iloc[0]
    np.testing.assert_allclose(first.vector, truth[:, first.row, first.col], rtol=1e-6)
    assert table.properties["latent:spaces"] == items[0].properties["latent:spaces"]
    with xr.open_dataset(items[0].get_self_href(), engine="stac-latent", upto="latent") as one:
        np.testing.assert_allclose(one["latent"].values[:, 3:6], truth[:, 3:6], rtol=1e-6)
    again = load_table(table)
    assert np.array_equal(np.stack(list(again.vector)), np.stack(list(rows.vector)))


def test_published_and_adopted_int8_tables_load_alike(aef, tmp_path):
    items, _, _ = aef
    table = publish(items, tmp_path / "v.parquet", dtype="int8", by="patch", patch=(8, 8))
    mine = np.stack(list(load_table(table).vector))
    (other,) = adopt(
        "any",
        tmp_path / "v.parquet",
        tmp_path / "others",
        fields={"latent:quantization": "per_vector"},
        **ANY,
    )
    assert other.assets["scales"].extra_fields["latent:columns"] == ["scale"]
    assert np.array_equal(np.stack(list(load_table(other).vector)), mine)
    raw = pq.read_table(tmp_path / "v.parquet")
    codes = np.stack([np.array(v, np.float32) for v in raw["vector"].to_pylist()])
    assert np.array_equal(mine, codes * raw["scale"].to_numpy()[:, None])


def test_adopting_again_and_what_stands_in_the_way(aef, tmp_path):
    items, _, path = aef
    again = adopt("alphaearth", path, tmp_path / "catalog")
    assert again[0].to_dict() == items[0].to_dict()
    twin = files.write_tiff(tmp_path / "2024" / "34N" / "tile.tiff", files.alphaearth_codes(1), nodata=-128)
    with pytest.raises(
        CatalogError, match=r"item 'tile' of collection 'alphaearth' is there already, for .*33N/tile.tiff"
    ):
        adopt("alphaearth", twin, tmp_path / "catalog")
    later = files.write_tiff(tmp_path / "2025" / "33N" / "tile.tiff", files.alphaearth_codes(1), nodata=-128)
    made = adopt("alphaearth", [twin, later, path], tmp_path / "second")
    assert len({i.id for i in made}) == 3
    assert [i.properties["start_datetime"][:4] for i in made] == ["2024", "2025", "2024"]


# -- tables as rasters


def cells(n=6, m=5, step=0.01):
    """Points of a grid in degrees, in no order, with one cell left out."""
    y, x = np.mgrid[:n, :m]
    lon, lat = 14 + step * (x.ravel() + 0.5), 46 - step * (y.ravel() + 0.5)
    at = np.random.default_rng(0).permutation(n * m)[1:]
    return lon[at], lat[at], (y.ravel()[at], x.ravel()[at])


def write_points(path, lon, lat, values, **more):
    columns = {"lon": pa.array(lon), "lat": pa.array(lat)}
    columns |= {f"e{i}": pa.array(values[:, i]) for i in range(values.shape[1])} | more
    return files.write_table(path, columns, {})


def test_a_table_on_a_grid_is_a_raster(tmp_path):
    lon, lat, (row, col) = cells()
    values = files.vectors_of(0, n=len(lon), k=12)
    path = write_points(tmp_path / "points.parquet", lon, lat, values)
    names = [f"e{i}" for i in range(12)]
    about = {"fields": {"latent:columns": names, "latent:position": ["lon", "lat"]}, **ANY}
    items = adopt("any", path, tmp_path / "catalog", crs="EPSG:4326", **about)
    assert items[0].assets["embeddings"].extra_fields["proj:shape"] == [6, 5]
    truth = np.full((12, 6, 5), np.nan, np.float32)
    truth[:, row, col] = values.T
    cube = load(items, upto="latent", chunks={"latitude": 2, "longitude": 3})["latent"]
    assert np.array_equal(cube.values[0], truth, equal_nan=True)
    assert (
        load(items, upto="latent", crs="EPSG:32633", resolution=500, resampling="nearest")["latent"].shape[1]
        == 12
    )
    table = load_table(items, bbox=(14, 45.9, 14.015, 46))
    assert len(table) == sum(lon <= 14.015)


def test_points_off_a_grid_say_what_to_use(tmp_path):
    rng = np.random.default_rng(0)
    path = write_points(
        tmp_path / "p.parquet", rng.uniform(10, 11, 30), rng.uniform(45, 46, 30), files.vectors_of(0, 30, 4)
    )
    about = {
        "fields": {
            "latent:columns": ["e0", "e1", "e2", "e3"],
            "latent:position": ["lon", "lat"],
        },
        **ANY,
    }
    with pytest.raises(
        GridError,
        match=r"are no cells of a regular grid in EPSG:4326: .*load them as a table with stac_latent.load_table",
    ):
        adopt("any", path, tmp_path / "a", crs="EPSG:4326", **about)
    items = adopt("any", path, tmp_path / "b", **about)
    with pytest.raises(CatalogError, match=r"tables of vectors load with stac_latent.load_table"):
        load(items, upto="latent")
    assert load_table(items).shape == (30, 3)


def test_two_dates_in_one_cell_are_no_raster(tmp_path):
    lon, lat, _ = cells()
    path = write_points(
        tmp_path / "p.parquet", np.r_[lon, lon[:1]], np.r_[lat, lat[:1]], files.vectors_of(0, len(lon) + 1, 2)
    )
    about = {
        "fields": {"latent:columns": ["e0", "e1"], "latent:position": ["lon", "lat"]},
        **ANY,
    }
    items = adopt("any", path, tmp_path / "a", crs="EPSG:4326", **about)
    with pytest.raises(GridError, match=r"several rows lie in one cell.*adopt each date apart"):
        load(items, upto="latent")


# -- bad input


def refused(kind, match, *args, **kw):
    with pytest.raises(kind, match=match):
        adopt(*args, **kw)


def test_arrays_that_are_not_as_the_product_says(tmp_path):
    out = tmp_path / "catalog"
    codes = files.alphaearth_codes(0)
    floats = files.write_tiff(tmp_path / "2024" / "f.tiff", codes.astype(np.float32))
    refused(
        CorruptDataError,
        r"data_type 'float32'; product 'alphaearth' has 'int8': it is another product",
        "alphaearth",
        floats,
        out,
    )
    few = files.write_tiff(tmp_path / "2024" / "few.tiff", codes[:63])
    refused(CorruptDataError, r"latent:dimensions 63; product 'alphaearth' has 64", "alphaearth", few, out)
    zero = files.write_tiff(tmp_path / "2024" / "z.tiff", codes, nodata=0)
    refused(CorruptDataError, r"nodata 0; product 'alphaearth' has -128", "alphaearth", zero, out)
    never = files.write_tiff(tmp_path / "n.tiff", codes)
    refused(CatalogError, r"nothing says of when it is .*--datetime 2024", "alphaearth", never, out)
    (tmp_path / "2024" / "t.tiff").write_bytes(b"II*\0nothing")
    refused(CorruptDataError, r"cannot be read as a raster", "alphaearth", tmp_path / "2024" / "t.tiff", out)
    refused(CatalogError, r"nowhere.tiff does not exist", "alphaearth", tmp_path / "nowhere.tiff", out)
    refused(CatalogError, r"no files were given", "alphaearth", [], out)
    assert not out.exists()


def test_scales_that_do_not_fit(tmp_path):
    out = tmp_path / "catalog"
    codes, scale = files.tessera_codes(0)
    for name, bad, message in (
        (
            "shape",
            scale[:-1],
            r"the scales .* have shape \(1, 8, 12\) \(channel, y, x\), the codes \(128, 9, 12\)",
        ),
        (
            "channels",
            np.stack([scale] * 3, axis=2),
            r"the scales .* expected one for each vector or for each number",
        ),
        ("type", np.ones_like(scale, np.int16), r"the scales .* are int16; expected floating-point numbers"),
        ("order", scale.T, r"the scales .* have shape|Fortran-ordered"),
    ):
        folder = tmp_path / name
        refused(CorruptDataError, message, "tessera", files.write_tessera(folder, codes, bad), out)
    tile = files.write_tessera(tmp_path / "missing", codes, scale)
    tile.with_name("grid_15.05_45.15_scales.npy").unlink()
    refused(
        CatalogError,
        r"the scales of .* are not at .*_scales.npy; fetch them, or name their file with --scales",
        "tessera",
        tile,
        out,
    )
    tile = files.write_tessera(tmp_path / "negative", codes, -scale)
    items = adopt("tessera", tile, out)
    with pytest.raises(CorruptDataError, match=r"negative or infinite scales"):
        load(items, upto="latent")
    assert np.isnan(scale).any()


def test_scales_that_are_gone_when_loading(tmp_path):
    tile = files.write_tessera(tmp_path, *files.tessera_codes(0))
    (item,) = adopt("tessera", tile, tmp_path / "catalog")
    del item.assets["scales"]
    item.clear_links("collection")
    with pytest.raises(CatalogError, match=r"its scales 'scales' are no asset of the item or its collection"):
        load(item, upto="latent")


def test_remote_items_may_not_lead_to_local_files(tmp_path):
    tile = files.write_tessera(tmp_path, *files.tessera_codes(0))
    (item,) = adopt("tessera", tile, tmp_path / "catalog")
    item.set_self_href("https://8.8.4.4/item.json")
    item.assets["embeddings"].href = "https://8.8.8.8/a.npy"
    with pytest.raises(CatalogError, match=r"leads to .*_scales.npy', on this machine"):
        load(item, upto="latent")


def test_files_that_change_after_they_were_adopted(tmp_path):
    codes, scale = files.tessera_codes(0)
    tile = files.write_tessera(tmp_path, codes, scale)
    (item,) = adopt("tessera", tile, tmp_path / "catalog")
    np.save(tile, codes[:5])
    with pytest.raises(CorruptDataError, match=r"has shape \(128, 5, 12\) .* declares \(128, 9, 12\)"):
        load(item, upto="latent")
    np.save(tile, codes.astype(np.int16))
    item.properties["updated"] = "2026-01-01T00:00:00Z"
    with pytest.raises(CorruptDataError, match=r"holds int16; asset 'embeddings' .* declares data_type int8"):
        load(item, upto="latent")
    tile.write_bytes(tile.read_bytes()[:-10])
    item.properties["updated"] = "2026-01-02T00:00:00Z"
    with pytest.raises(CorruptDataError, match=r"its header declares .*; it is truncated, fetch it again"):
        load(item, upto="latent")


def test_hostile_numpy_files(tmp_path):
    path = tmp_path / "a.npy"
    axes = axis_names(["y", "x", "channel"])
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(CorruptDataError, match="holds object"):
        open_array("npy", str(path), axes)
    np.save(path, np.asfortranarray(np.ones((3, 4, 2), np.int8)))
    with pytest.raises(CorruptDataError, match=r"holds Fortran-ordered int8"):
        open_array("npy", str(path), axes)
    head = (
        b"\x93NUMPY\x01\x00\x76\x00"
        + b"{'descr': '|i1', 'fortran_order': False, 'shape': (99999999, 99999999, 128), }".ljust(117)
        + b"\n"
    )
    path.write_bytes(head + b"\0" * 64)
    with pytest.raises(CorruptDataError, match="its header declares"):
        open_array("npy", str(path), axes)
    path.write_bytes(b"PK\x03\x04 not numpy")
    with pytest.raises(CorruptDataError, match="is no NumPy file"):
        open_array("npy", str(path), axes)
    np.save(path, np.ones((3, 4, 2), np.int8))
    with pytest.raises(CorruptDataError, match="x comes before y"):
        open_array("npy", str(path), axis_names(["x", "y", "channel"]))
    with pytest.raises(CatalogError, match=r"the axes \['y', 'x', 'z'\] are not y, x and channel"):
        axis_names(["y", "x", "z"])


def test_grids_that_are_nowhere(tmp_path):
    codes, scale = files.tessera_codes(0)
    tile = files.write_tessera(tmp_path, codes, scale)
    mask = tmp_path / "global_0.1_degree_tiff_all" / "grid_15.05_45.15.tiff"
    files.write_tiff(mask, np.ones((1, 9, 13), np.uint8))
    out = tmp_path / "catalog"
    refused(
        GridError,
        r"has \(9, 13\) pixels, the array \(9, 12\) cells: they do not share a grid",
        "tessera",
        tile,
        out,
    )
    mask.unlink()
    refused(
        GridError,
        r"does not say where it lies \(looked for .*grid_15.05_45.15.tiff.*name a raster of the same grid with --like",
        "tessera",
        tile,
        out,
    )
    refused(GridError, r"needs six numbers and crs=", "tessera", tile, out, transform=[1, 2])
    like = files.write_tiff(tmp_path / "like.tif", np.ones((1, 9, 12), np.uint8))
    by_raster = adopt("tessera", tile, out, like=like)
    told = adopt("tessera", tile, tmp_path / "told", crs=files.UTM, transform=list(files.NORTH)[:6])
    assert (
        by_raster[0].assets["embeddings"].extra_fields["proj:transform"]
        == told[0].assets["embeddings"].extra_fields["proj:transform"]
    )


def test_codes_without_a_quantisation(tmp_path):
    path = files.write_tiff(tmp_path / "a.tif", files.alphaearth_codes(0))
    out = tmp_path / "catalog"
    refused(
        CatalogError, r"holds int8, and nothing says how these codes become numbers", "any", path, out, **ANY
    )
    power = {"latent:quantization": "power"}
    refused(
        CatalogError,
        r"'power' needs latent:quantization_scale, latent:quantization_power",
        "any",
        path,
        out,
        fields=power,
        **ANY,
    )
    few = {"latent:quantization": "linear", "latent:quantization_scale": [1.0, 2.0]}
    refused(
        CatalogError,
        r"quantization_scale has 2 values; expected one, or one for each of 64 channels",
        "any",
        path,
        out,
        fields=few,
        **ANY,
    )
    words = {"latent:quantization": "codebook"}
    refused(
        CatalogError,
        r"'codebook' is not read from others' files; expected one of none, round",
        "any",
        path,
        out,
        fields=words,
        **ANY,
    )
    refused(
        CatalogError,
        r"does not say the producer of its model.*state it with --producer",
        "any",
        path,
        out,
        fields={"latent:quantization": "round"},
        when="2024",
    )
    unnamed = files.write_tiff(tmp_path / "a.dat", files.alphaearth_codes(0))
    refused(CatalogError, r"its name does not say what it is", "any", unnamed, out, **ANY)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda v: [*v[:2], v[2][:-1], *v[3:]], r"row 2 of 'embeddings' has 767 numbers, expected 768 \(1 rows differ\)"),
        (lambda v: [[*v[0][:-1], float("nan")], *v[1:]], r"row group 0: 3 rows, 1 with NaN or infinite numbers \(first: row 0\)"),
        (lambda v: [v[0], [0.0] * 768, *v[2:]], r"1 of zeros alone \(first: row 1\)"),
        (lambda v: [v[0], None, *v[2:]], r"1 without a vector \(first: row 1\); .*leave them out with invalid='drop'"),
    ],
)  # fmt: skip
def test_unsound_vectors(tmp_path, spoil, message):
    values = files.vectors_of(0, n=5, k=768).tolist()
    columns = files.clay_columns(np.array(values))
    columns["embeddings"] = pa.array(spoil(values), pa.list_(pa.float32()))
    items = adopt(
        "clay",
        files.write_table(tmp_path / "a.gpq", columns, files.geo_footer()),
        tmp_path / "catalog",
        version="v0",
    )
    with pytest.raises(CorruptDataError, match=message):
        load_table(items)
    if "numbers, expected" not in message:
        kept = load_table(items, invalid="drop")
        assert len(kept) == 4
        assert np.isfinite(np.stack(list(kept.vector))).all()
        assert len(load_table(items, invalid="keep")) == 5
    with pytest.raises(CatalogError, match="invalid='ignore'; expected 'raise', 'drop' or 'keep'"):
        load_table(items, invalid="ignore")


def test_tables_that_are_no_tables_of_vectors(tmp_path):
    out = tmp_path / "catalog"
    values = files.vectors_of(0, 4, 768)
    footer = files.geo_footer()
    columns = files.clay_columns(values)

    def write(change, name="a.gpq", foot=footer):
        return files.write_table(
            tmp_path / name, {k: v for k, v in {**columns, **change}.items() if v is not None}, foot
        )

    refused(
        CatalogError,
        r"has no column of vectors \(looked for embeddings, .*it has index, source_url",
        "clay",
        write({"embeddings": None}),
        out,
    )
    tokens = pa.array([[[1.0, 2.0]]] * 4, pa.list_(pa.list_(pa.float32())))
    refused(
        CorruptDataError,
        r"is no vector; .*lists of lists are tokens: pool them",
        "clay",
        write({"embeddings": tokens}),
        out,
    )
    refused(
        CorruptDataError,
        r"is no vector; expected one column of lists of numbers",
        "clay",
        write({"embeddings": pa.array(["a"] * 4)}),
        out,
    )
    refused(
        CatalogError,
        r"has no GeoParquet geometry; name its columns of longitude and latitude",
        "clay",
        write({}, foot={}),
        out,
    )
    encoded = json.loads(json.dumps(footer).replace("WKB", "point"))
    refused(CatalogError, r"is encoded as 'point'; expected WKB", "clay", write({}, foot=encoded), out)
    empty = pa.array([None] * 4, pa.list_(pa.float32()))
    refused(
        CorruptDataError, r"no row of 'embeddings' holds a vector", "clay", write({"embeddings": empty}), out
    )
    short = pa.array([[1.0]] * 4, pa.list_(pa.float32()))
    refused(
        CorruptDataError,
        r"latent:dimensions 1; product 'clay' has 768",
        "clay",
        write({"embeddings": short}),
        out,
    )
    refused(
        CorruptDataError, r"holds no WKB geometry", "clay", write({"geometry": pa.array([b"no"] * 4)}), out
    )
    (tmp_path / "cut.gpq").write_bytes(write({}).read_bytes()[:-9])
    refused(CorruptDataError, r"is no complete Parquet file", "clay", tmp_path / "cut.gpq", out)
    metres = files.geo_footer({"type": "name"})
    metres["geo"]["columns"]["geometry"]["crs"] = json.loads(__import__("pyproj").CRS(3857).to_json())
    refused(
        CatalogError,
        r"declares its geometry in WGS 84 / Pseudo-Mercator, and holds what look like degrees",
        "clay",
        write({}, foot=metres),
        out,
    )
    assert not out.exists()


def test_tables_of_several_spaces(tmp_path):
    one = files.write_table(
        tmp_path / "a.gpq", files.clay_columns(files.vectors_of(0, 4, 768)), files.geo_footer()
    )
    first = adopt("clay", one, tmp_path / "catalog", version="v0")
    second = adopt("clay", one, tmp_path / "other", version="v1")
    with pytest.raises(
        CatalogError, match=r"vectors of 2 spaces cannot be compared, so they cannot share a table"
    ):
        load_table([*first, *second])
    both = load_table([*first, *first], columns=["date"])
    assert both.shape == (8, 4)
    assert both.attrs["latent"]["latent:dimensions"] == 768
    with pytest.raises(CatalogError, match=r"has no columns colour; it has index"):
        load_table(first, columns=["colour"])


def test_every_error_is_one_of_ours(tmp_path):
    assert issubclass(CorruptDataError, StacLatentError)
    assert stac_latent.adopt is adopt
