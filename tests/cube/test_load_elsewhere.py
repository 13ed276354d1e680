"""Areas apart from all Items are refused with where the Items lie; those that touch one are loaded."""

from __future__ import annotations

import json

import numpy as np
import pytest
import shapely
from affine import Affine
from odc.geo import geom
from odc.geo.geobox import GeoBox
from test_crs import pixels, raster_item

from stac_latent import encode, load
from stac_latent.codec.shipped import zstd
from stac_latent.errors import GridError

SHAPE = (100, 120)
SCENES = {
    "utm": ("EPSG:32633", Affine(20, 0, 400_000, 0, -20, 5_100_000)),
    "zone 60": ("EPSG:32760", Affine(200, 0, 810_000, 0, -200, 8_000_000)),
    "degrees": ("EPSG:4326", Affine(0.01, 0, 179.5, 0, -0.01, -17)),
    "0 to 360": ("EPSG:4326", Affine(0.01, 0, 270, 0, -0.01, 40)),
    "pole": ("EPSG:3031", Affine(5000, 0, -300_000, 0, -5000, 250_000)),
    "mercator": ("EPSG:3857", Affine(100, 0, 1_000_000, 0, -100, 6_000_000)),
}


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("elsewhere")
    data = np.maximum(pixels(SHAPE), 1)
    return {
        name: encode(
            raster_item(folder, crs, data, transform=t, name=name.replace(" ", "")), zstd(["v"]), folder / "o"
        )[0]
        for name, (crs, t) in SCENES.items()
    }


INSIDE = {
    "utm": (13.715, 46.035, 13.72, 46.04),
    "zone 60": (179.98, -18.15, -179.98, -18.1),
    "degrees": (-179.5, -17.3, -179.4, -17.2),
    "0 to 360": (-89.8, 39.5, -89.7, 39.6),
    "pole": (-20, -89.9, 20, -89.5),
    "mercator": (9.02, 47.35, 9.03, 47.36),
}
APART = {
    "utm": (46.03, 13.69, 46.04, 13.70),  # latitude before longitude
    "zone 60": (0.1, -18.15, 0.2, -18.1),
    "degrees": (178.0, -17.3, 179.0, -17.2),
    "0 to 360": (89.7, 39.5, 89.8, 39.6),
    "pole": (-20, 80, 20, 85),
    "mercator": (9.02, -47.36, 9.03, -47.35),
}


@pytest.mark.parametrize("name", SCENES)
def test_boxes(encoded, name):
    item = encoded[name]
    for upto in ("field", "latent"):
        with pytest.raises(
            GridError,
            match=r"area that was asked for \(.*\) and the 1 item\(s\), which lie within \(.*\), lie apart",
        ):
            load(item, bbox=APART[name], upto=upto)
    assert (load(item, bbox=INSIDE[name]).v.values > 0).any()


@pytest.mark.parametrize("name", SCENES)
def test_all_of_an_item_is_no_place_elsewhere(encoded, name):
    """Edges and corners of a grid, as one pixel each."""
    item = encoded[name]
    crs, t = SCENES[name]
    for row, column in ((0, 0), (0, SHAPE[1] - 1), (SHAPE[0] - 1, 0), (SHAPE[0] - 1, SHAPE[1] - 1), (50, 60)):
        here = GeoBox((1, 1), t * Affine.translation(column, row), crs).extent
        cube = load(item, geopolygon=here, chunks={})
        assert min(cube.sizes.values()) == 1


def test_where_the_items_lie_is_said(encoded):
    with pytest.raises(
        GridError,
        match=r"asked for \(46\.03, 13\.69, 46\.04, 13\.7\) and the 2 item\(s\), which lie within \(8\.98\d*, 4\d\.\d+, 13\.7\d*, 47\.\d+\), "
        r"lie apart: west, south, east, north in degrees\. Ask for a place there, or search",
    ):
        load([encoded["utm"], encoded["mercator"]], bbox=APART["utm"], crs="EPSG:3857", resolution=100)


def test_geometries(encoded):
    item = encoded["utm"]
    away, here = shapely.box(*APART["utm"]), shapely.box(*INSIDE["utm"])
    forms = [
        lambda g: {"intersects": json.loads(shapely.to_geojson(g))},
        lambda g: {"geopolygon": json.loads(shapely.to_geojson(g))},
        lambda g: {"geopolygon": geom.Geometry(g, "EPSG:4326")},
        lambda g: {"geopolygon": geom.Geometry(g, "EPSG:4326").to_crs("EPSG:3857")},
        lambda g: {"intersects": g},
    ]
    for form in forms:
        with pytest.raises(GridError, match="lie apart"):
            load(item, **form(away))
        assert (load(item, **form(here)).v.values > 0).all()


def test_one_of_several_items_is_enough(encoded):
    cube = load([encoded["utm"], encoded["mercator"]], bbox=INSIDE["utm"], crs="EPSG:3857", resolution=100)
    assert (cube.v.values > 0).any()


def test_grids_stay_as_they_are(encoded):
    """A whole grid is a template, and holds nodata where no Item lies."""
    box = GeoBox.from_bbox((700_000, 5_000_000, 700_400, 5_000_400), "EPSG:32633", resolution=20)
    assert (load(encoded["utm"], geobox=box).v.values == 0).all()


def test_the_command_says_where(run, encoded, tmp_path):
    item = encoded["utm"].get_self_href()
    code, _, said = run("load", item, "--bbox", "46.03,13.69,46.04,13.70")  # the Item states a box of its own
    assert code == 1
    assert "items that match but for bbox lie between (0, 0, 1, 1): west, south" in said
    assert not list(tmp_path.glob("*.tif"))
