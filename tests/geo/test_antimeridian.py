"""Places of tables where longitudes jump: chips across 180 degrees in any CRS, round the poles, and longitudes from 0 to 360."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyproj
import pytest
import shapely

from stac_latent.catalog.adopt.adopt import adopt
from stac_latent.catalog.publish.publish import publish
from stac_latent.errors import CatalogError, SearchError
from stac_latent.geo.antimeridian import to_lonlat, within_180
from stac_latent.index.nearest import nearest
from stac_latent.store.embeddings import read_embeddings

NONE = object()


def table(path, shapes, crs=NONE, vectors=None):
    """A GeoParquet file of vectors; without ``crs`` its footer has no such key."""
    vectors = np.eye(len(shapes), dtype="float32") if vectors is None else vectors
    column = {"encoding": "WKB", "geometry_types": []} | ({} if crs is NONE else {"crs": crs})
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
    data = pa.table(
        {"v": pa.array(vectors.tolist(), pa.list_(pa.float32())), "geometry": shapely.to_wkb(shapes)}
    )
    pq.write_table(data.replace_schema_metadata({"geo": json.dumps(geo)}), path)
    return path


def adopted(folder, *args, **kw):
    path = table(folder / "t.parquet", *args, **kw)
    fields = {"latent:columns": ["v"]}
    return adopt(
        "any", path, folder / "c", producer="me", name="mine", version="1", when="2024", fields=fields
    )


def turn(crs):
    return pyproj.Transformer.from_crs(crs, "OGC:CRS84", always_xy=True).transform


def area(shape):
    return abs(pyproj.Geod(ellps="WGS84").geometry_area_perimeter(shape)[0])


@pytest.mark.parametrize(
    ("crs", "x", "y"),
    [
        ("EPSG:32601", 164000, 0),
        ("EPSG:32660", 831500, 10000),
        ("EPSG:3832", 3339584 - 2500, -1900000),
        ("EPSG:3031", -2500, -1500000),
        ("+proj=laea +lat_0=0 +lon_0=175 +datum=WGS84", 554000, 20000),
    ],
)  # fmt: skip
def test_a_chip_across_180_degrees_has_two_parts_and_its_own_area(tmp_path, crs, x, y):
    chip, far = shapely.box(x, y, x + 5000, y + 5000), shapely.box(x + 50000, y, x + 55000, y + 5000)
    items = adopted(tmp_path, [chip, far], json.loads(pyproj.CRS(crs).to_json()))
    publish(items, tmp_path / "v.parquet")
    row = read_embeddings(tmp_path / "v.parquet").sort_values("row").geometry.iloc[0]
    assert shapely.get_num_geometries(row) == 2
    assert (np.abs(shapely.get_coordinates(row)[:, 0]) > 179).all()
    dense = shapely.segmentize(chip, 500)
    lon, lat = turn(crs)(*shapely.get_coordinates(dense).T)
    assert area(row) == pytest.approx(
        area(shapely.Polygon(np.stack([np.mod(lon, 360), lat], axis=1))), rel=1e-3
    )
    west, _, east, _ = items[0].bbox
    assert west > 178 or east < -178 or west > east
    with pytest.raises(SearchError, match="no row of"):
        nearest(tmp_path / "v.parquet", (10.0, shapely.centroid(row).y))


def test_maps_of_the_world_stay_whole():
    edge = 20037508.342789244
    world = np.array([shapely.box(-edge, -1e6, edge, 1e6)], dtype=object)
    (found,) = to_lonlat(world, turn("EPSG:3857"), projected=True)
    assert found.area == pytest.approx(360 * (found.bounds[3] - found.bounds[1]), rel=1e-6)
    belt = np.array([shapely.box(-180, -10, 180, 10)], dtype=object)
    (same,) = to_lonlat(belt, turn("EPSG:4258"), projected=False)
    assert same.bounds == pytest.approx((-180, -10, 180, 10))


def test_a_cap_round_the_pole_holds_the_pole():
    cap = np.array([shapely.Point(0, 0).buffer(500_000)], dtype=object)
    (found,) = to_lonlat(cap, turn("EPSG:3413"), projected=True)
    assert found.covers(shapely.MultiPoint([(0, 89), (179, 88), (-120, 87)]))
    assert not found.intersects(shapely.Point(30, 80))


def test_holes_and_other_types_are_split_too():
    chip = shapely.box(3339584 - 9000, 0, 3339584 + 9000, 9000).difference(
        shapely.box(3339584 - 900, 900, 3339584 + 900, 1800)
    )
    line = shapely.LineString([(3339584 - 9000, 0), (3339584 + 9000, 0)])
    point = shapely.Point(3339584 + 9000, 0)
    both = shapely.MultiPolygon([chip, shapely.box(3400000, 0, 3401000, 1000)])
    shapes = np.array([chip, line, point, both, None], dtype=object)
    found = to_lonlat(shapes, turn("EPSG:3832"), projected=True)
    assert [g if g is None else g.geom_type for g in found] == [
        "MultiPolygon",
        "MultiLineString",
        "Point",
        "MultiPolygon",
        None,
    ]
    assert not found[0].intersects(shapely.box(179.999, 0.01, 180, 0.014))
    assert found[2].x < -179.9


def test_longitudes_from_0_to_360_are_wrapped(tmp_path):
    shapes = [
        shapely.Point(10, 5),
        shapely.Point(190, 5),
        shapely.box(179.5, 0, 180.5, 1),
        shapely.box(350, 0, 352, 1),
    ]
    items = adopted(tmp_path, shapes)
    publish(items, tmp_path / "v.parquet")
    rows = read_embeddings(tmp_path / "v.parquet").sort_values("row").geometry
    assert rows.iloc[1] == shapely.Point(-170, 5)
    assert shapely.get_num_geometries(rows.iloc[2]) == 2
    assert rows.iloc[3].bounds == (-10, 0, -8, 1)
    assert within_180(np.array([shapely.Point(-190, 0)], dtype=object))[0] == shapely.Point(170, 0)


def test_a_crs_of_null_is_refused(tmp_path):
    with pytest.raises(
        CatalogError,
        match=r"says that the CRS of its geometry 'geometry' is not known .*set_crs.*--position lon,lat",
    ):
        adopted(tmp_path, shapely.points([[12.5, 50.1], [13.5, 50.2]]), None)


def test_metres_without_a_crs_are_refused(tmp_path):
    with pytest.raises(
        CatalogError,
        match=r"a row lies at longitude 500000, latitude 5500000, and none on the Earth.*set_crs",
    ):
        adopted(tmp_path, shapely.points([[500000, 5500000], [500010, 5500000]]))
    assert not (tmp_path / "c" / "catalog.json").exists()
