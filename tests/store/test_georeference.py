"""Stores tell their place to readers that know nothing of this package: plain xarray, rioxarray, odc-geo."""

from __future__ import annotations

import odc.geo.xr  # noqa: F401 (registers .odc)
import pytest
import rioxarray  # noqa: F401 (registers .rio)
import xarray as xr
import zarr
from core_support import BANDS
from pyproj import CRS

from stac_latent.codec.shipped import dct
from stac_latent.cube.grid.tiling import lattice_grid
from stac_latent.store.consolidate import finish
from stac_latent.store.georeference import grid_fields, group_place
from stac_latent.store.zarr.group import GroupOptions, create

UTM = "EPSG:32651"
LOCAL = CRS.from_proj4("+proj=tmerc +lat_0=11 +lon_0=123 +ellps=intl +units=m").to_wkt()
"""A CRS that no authority has a code for."""


def group(path, crs, transform, shape, **fields):
    """An empty group of a codec on a grid."""
    codec = dct(BANDS, step=16.0)
    grid = lattice_grid(crs, transform, shape, codec.stride)
    create(
        path,
        codec,
        grid,
        group_place({**codec.spec.to_fields(), **grid.to_fields(), **fields}),
        GroupOptions("plain"),
    )
    finish(path)
    return grid


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        (UTM, (10.0, 0.0, 300_010.0, 0.0, -10.0, 1_500_000.0)),
        ("EPSG:4326", (1e-4, 0.0, 123.0003, 0.0, -1e-4, 14.0)),
        (LOCAL, (20.0, 0.0, 40.0, 0.0, -20.0, -60.0)),
    ],
)
def test_plain_readers_see_crs_and_transform_of_cells_and_of_pixels(tmp_path, crs, transform):
    grid = group(tmp_path / "a.zarr", crs, transform, (700, 500))
    with xr.open_zarr(tmp_path / "a.zarr") as ds:
        for name, place in (("latent", grid.cell_transform), ("mask", transform)):
            found = ds[name]
            assert CRS(found.rio.crs).equals(CRS(crs)), name
            assert tuple(found.rio.transform())[:6] == pytest.approx(place)
            assert CRS(str(found.odc.crs)).equals(CRS(crs))
            assert tuple(found.odc.geobox.affine)[:6] == pytest.approx(place)
        axis = ds.x.attrs
    assert (axis["axis"], axis["units"]) == ("X", "degrees_east" if crs == "EPSG:4326" else "m")
    assert axis["standard_name"] == ("longitude" if crs == "EPSG:4326" else "projection_x_coordinate")


def test_conventions_are_declared_with_the_grid_of_each_array(tmp_path):
    grid = group(tmp_path / "a.zarr", UTM, (10.0, 0.0, 300_010.0, 0.0, -10.0, 1_500_000.0), (40, 64))
    root = zarr.open_group(str(tmp_path / "a.zarr"), mode="r")
    assert [c["name"] for c in root.attrs["zarr_conventions"]] == ["proj:"]
    assert root.attrs["proj:code"] == UTM
    assert "proj:transform" not in root.attrs
    assert root.attrs["latent"]["proj:shape"] == [40, 64]
    assert grid_fields(root.attrs)["proj:transform"] == list(grid.transform)
    for name, place, dims in (
        ("latent", grid.cell_transform, ["y", "x"]),
        ("mask", grid.transform, ["py", "px"]),
    ):
        attrs = root[name].attrs
        assert [c["name"] for c in attrs["zarr_conventions"]] == ["spatial:"]
        assert attrs["spatial:transform"] == list(place)
        assert attrs["spatial:dimensions"] == dims
    assert sorted(root.array_keys()) == ["latent", "mask", "x", "y"], "a chip has no room for more"


def test_no_coordinates_where_rows_are_turned_against_the_axes(tmp_path):
    turned = (8.0, 6.0, 300_000.0, 6.0, -8.0, 1_500_000.0)
    grid = group(tmp_path / "a.zarr", UTM, turned, (160, 160))
    with xr.open_zarr(tmp_path / "a.zarr") as ds:
        assert list(ds.coords) == ["spatial_ref"]
        assert ds.latent.attrs["spatial:transform"] == list(grid.cell_transform)


def test_a_store_of_several_lattices_opens_as_a_tree(tmp_path):
    fine, coarse = (
        (10.0, 0.0, 300_000.0, 0.0, -10.0, 1_500_000.0),
        (60.0, 0.0, 300_000.0, 0.0, -60.0, 1_500_000.0),
    )
    group(tmp_path / "a.zarr", UTM, fine, (900, 840))
    part = group(tmp_path / "a.zarr" / "g60", UTM, coarse, (150, 140), **{"latent:part": 1})
    finish(tmp_path / "a.zarr")
    with xr.open_datatree(tmp_path / "a.zarr", engine="zarr") as tree:
        found = tree["g60/latent"]
        assert found.dims == ("channel_1", "y_1", "x_1")
        assert found.rio.crs == UTM
        assert tuple(found.odc.geobox.affine)[:6] == part.cell_transform
