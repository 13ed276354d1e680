"""Vectors of other producers, published and searched: against their files, read by pyarrow, and brute force in float64."""

from __future__ import annotations

import json
import shlex
from datetime import UTC, datetime
from pathlib import Path

import adopt_support as files
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pystac
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from stac_latent import adopt, label, load_table, nearest, publish
from stac_latent.catalog.adopt.period import moments
from stac_latent.cli import app
from stac_latent.errors import CatalogError, CorruptDataError, SearchError, UnresolvedSpaceError
from stac_latent.store.embeddings import read_embeddings

LAW = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
ANY = {"producer": "me", "name": "mine", "version": "1"}


def run(*words):
    return CliRunner().invoke(app, [str(w) for w in words])


def shell(command):
    """A command as an error message names it."""
    program, *words = shlex.split(command)
    assert program == "stac-latent"
    return run(*words)


def brute_force(values, query, k):
    """Rows at the least cosine distance in float64, and these distances."""
    v, q = values.astype(np.float64), query.astype(np.float64)
    with np.errstate(invalid="ignore"):
        distance = 1 - v @ q / (np.linalg.norm(v, axis=1) * np.linalg.norm(q))
    order = np.argsort(distance, kind="stable")[:k]
    return order, distance[order]


def clay(folder, values, name="33TWN.gpq", **change):
    columns = files.clay_columns(np.nan_to_num(values)) | change
    return files.write_table(folder / name, columns, files.geo_footer())


@pytest.fixture
def chips(tmp_path):
    """Chips of Clay, adopted, and their vectors."""
    values = files.vectors_of(7, n=10, k=768)
    items = adopt("clay", clay(tmp_path, values), tmp_path / "others", version="v0")
    return items, values, tmp_path / "others" / "catalog.json"


# -- tables ------------------------------------------------------------------------------------------------------


@LAW
@given(data=st.data())
def test_nearest_on_any_table_equals_brute_force_on_its_file(tmp_path_factory, data):
    """Codes in a drawn quantisation, order and row groups, some rows without a vector: adopted, published and searched."""
    folder = tmp_path_factory.mktemp("any")
    n, k = data.draw(st.integers(3, 30)), data.draw(st.integers(2, 6))
    seed = data.draw(st.integers(0, 1000))
    rng = np.random.default_rng(seed)
    numbers = rng.normal(size=(n, k)).astype(np.float32)
    gone = rng.random(n) < data.draw(st.sampled_from([0, 0.3]))
    gone[rng.integers(n)] = False
    fields = {"latent:columns": ["v"]}
    vectors = [None if g else row for g, row in zip(gone, numbers.tolist(), strict=True)]
    columns = {"v": pa.array(vectors, pa.list_(pa.float32()))}
    truth = numbers
    if data.draw(st.booleans()):
        codes = rng.integers(-127, 128, (n, k)).astype(np.int8)
        codes[:, 0] |= 1
        scale = rng.uniform(0.1, 2, n).astype(np.float32)
        columns = {
            "v": pa.array([None if g else c for g, c in zip(gone, codes.tolist(), strict=True)], pa.list_(pa.int8())),
            "scale": pa.array(scale),
        }  # fmt: skip
        fields["latent:quantization"] = "per_vector"
        truth = codes.astype(np.float32) * scale[:, None]
    lon, lat = rng.uniform(-170, 170, n), rng.uniform(-80, 80, n)
    footer = {}
    if data.draw(st.booleans()):
        columns["geometry"] = pa.array(shapely.to_wkb(shapely.box(lon, lat, lon + 1e-3, lat + 1e-3)))
        footer = files.geo_footer()
    else:
        columns |= {"lon": pa.array(lon), "lat": pa.array(lat)}
        fields["latent:position"] = ["lon", "lat"]
    path = files.write_table(folder / "t.parquet", columns, footer, data.draw(st.integers(1, n)))
    items = adopt("any", path, folder / "others", fields=fields, when="2024", **ANY)
    table = publish(items, folder / "v.parquet", dtype="float32", invalid="drop", min_valid=1.0)
    there = np.flatnonzero(~gone)
    assert table.properties["table:row_count"] == len(there)
    assert table.properties["latent:spaces"] == items[0].properties["latent:spaces"]

    query = rng.normal(size=k).astype(np.float32)
    best, distance = brute_force(truth[there], query, 5)
    found = nearest(folder / "v.parquet", query, k=5)
    np.testing.assert_allclose(found["distance"], distance, atol=1e-9)
    if np.diff(brute_force(truth[there], query, 6)[1]).min(initial=1) > 1e-12:  # else several are as near
        assert list(found.row) == list(there[best])

    rows = read_embeddings(folder / "v.parquet").set_index("row").loc[there]
    assert np.array_equal(np.stack(list(rows.vector)), truth[there])
    centres = shapely.get_coordinates(shapely.centroid(rows.geometry.to_numpy()))
    np.testing.assert_allclose(centres, np.stack([lon, lat], axis=1)[there], atol=1e-3)
    (same,) = nearest(folder / "v.parquet", tuple(centres[0].tolist()), k=1).row
    pair = truth[[same, there[0]]].astype(
        np.float64
    )  # of short vectors of codes, several may point the same way
    assert pair[0] @ pair[1] / np.prod(np.linalg.norm(pair, axis=1)) == pytest.approx(1, abs=1e-12)


def test_rows_say_where_they_come_from(chips, tmp_path):
    items, values, _ = chips
    table = publish(items, tmp_path / "v.parquet", dtype="float32", row_group_bytes=4096)
    rows = read_embeddings(tmp_path / "v.parquet").sort_values("row")
    assert list(rows.id) == [f"33TWN/{i}/0" for i in range(10)]
    assert set(rows.item_id) == {"33TWN"}
    assert set(rows.collection) == {"clay"}
    assert set(rows.valid) == {1.0}
    assert np.array_equal(np.stack(list(rows.vector)), values)
    assert shapely.equals(rows.geometry.to_numpy(), files.boxes(10)).all()
    assert {t.isoformat() for t in rows.datetime} == {"2022-06-10T00:00:00+00:00"}
    fields = table.assets["embeddings"].extra_fields
    assert fields["latent:granularity"] == "chip"
    assert "latent:stride" not in fields
    assert json.loads(pq.read_schema(tmp_path / "v.parquet").metadata[b"latent"])["publish"] == {
        "by": "row", "source_space": fields["latent:space"]
    }  # fmt: skip
    assert [link.title for link in table.get_links("derived_from")] == ["33TWN"]
    assert np.array_equal(np.sort(load_table(table).row), np.arange(10))
    pystac.Item.from_file(str(tmp_path / "v.parquet.json"))


def test_channels_make_a_space_of_their_own(chips, tmp_path):
    items, values, _ = chips
    table = publish(items, tmp_path / "v.parquet", channels=16, dtype="float32")
    rows = read_embeddings(tmp_path / "v.parquet").sort_values("row")
    assert np.array_equal(np.stack(list(rows.vector)), values[:, :16])
    assert table.properties["latent:spaces"] != items[0].properties["latent:spaces"]


@pytest.mark.parametrize("by_file", [True, False])
def test_time_of_a_row_is_that_of_its_column(tmp_path, by_file):
    years = pa.array([2020, 2021, None, 2023, 2021], pa.int32())
    days = pa.array(["20200330T100031", "2021-05-01", None, "2023-01-01T00:00:00+02:00", "2021-05-01"])
    columns = files.major_tom_columns(files.vectors_of(0, n=5)) | {"timestamp": days}
    path = files.write_table(tmp_path / "a.parquet", columns, files.geo_footer())
    expected = [
        "2020-03-30T10:00:31",
        "2021-05-01T00:00:00",
        None,
        "2022-12-31T22:00:00",
        "2021-05-01T00:00:00",
    ]
    if by_file:
        columns["timestamp"] = years
        path = files.write_table(tmp_path / "b.parquet", columns, files.geo_footer())
        expected = [
            "2020-01-01T00:00:00",
            "2021-01-01T00:00:00",
            None,
            "2023-01-01T00:00:00",
            "2021-01-01T00:00:00",
        ]
    items = adopt("major-tom", path, tmp_path / "others", version="1")
    assert items[0].assets["embeddings"].extra_fields["latent:time_column"] == "timestamp"
    publish(items, tmp_path / "v.parquet")
    times = pq.read_table(tmp_path / "v.parquet").sort_by("row")["datetime"].to_pylist()
    assert [None if t is None else t.isoformat()[:19] for t in times] == expected
    told = adopt("major-tom", path, tmp_path / "told", version="1", when="2019")
    publish(told, tmp_path / "w.parquet")
    assert {t.year for t in pq.read_table(tmp_path / "w.parquet")["datetime"].to_pylist()} == {2019}


@pytest.mark.parametrize(
    "kind", [pa.timestamp("ns"), pa.timestamp("ms", tz="Europe/Berlin"), pa.date32(), pa.string()]
)
def test_times_of_any_type_are_in_utc(kind):
    noon = datetime(2024, 1, 2, 12 if pa.types.is_timestamp(kind) else 0, tzinfo=UTC)
    column = pa.chunked_array(
        [pa.array([noon, None], pa.timestamp("us", tz="UTC")).cast(kind), pa.array([], kind)]
    )
    assert moments(column, "t").to_pylist() == [noon, None]


def test_texts_that_are_no_times():
    with pytest.raises(CatalogError, match=r"^t holds 'then', which is no time: "):
        moments(pa.chunked_array([pa.array(["2024", "then"])]), "t")


def test_a_region_takes_the_rows_that_touch_it(chips, tmp_path):
    items, _, _ = chips
    box = (14.05, 45.0, 14.09, 45.2)
    publish(items, tmp_path / "v.parquet", bbox=box)
    inside = np.flatnonzero(shapely.intersects(files.boxes(10), shapely.box(*box)))
    assert np.array_equal(np.sort(read_embeddings(tmp_path / "v.parquet").row), inside)
    with pytest.raises(CatalogError, match=r"nothing to publish: no cell of 1 items overlaps the region"):
        publish(items, tmp_path / "w.parquet", bbox=(0, 0, 1, 1))


def test_unsound_rows_follow_the_rules_of_tables(tmp_path):
    values = files.vectors_of(0, n=6, k=768)
    lists = values.tolist()
    lists[1], lists[2], lists[4] = None, [0.0] * 768, [float("nan"), *lists[4][1:]]
    path = clay(tmp_path, values, embeddings=pa.array(lists, pa.list_(pa.float32())))
    items = adopt("clay", path, tmp_path / "others", version="v0")
    message = r"row group 0: 3 rows, 1 without a vector .* and 1 of zeros alone .* invalid='drop' \(--invalid drop\)"
    with pytest.raises(CorruptDataError, match=message):
        publish(items, tmp_path / "v.parquet")
    assert not (tmp_path / "v.parquet").exists()
    publish(items, tmp_path / "v.parquet", invalid="drop")
    assert sorted(read_embeddings(tmp_path / "v.parquet").row) == [0, 3, 5]
    publish(items, tmp_path / "v.parquet", invalid="keep")
    assert len(read_embeddings(tmp_path / "v.parquet")) == 6
    assert sorted(nearest(tmp_path / "v.parquet", values[0], k=9).row) == [0, 3, 5]
    with pytest.raises(CatalogError, match="invalid='ignore'; expected 'raise', 'drop' or 'keep'"):
        publish(items, tmp_path / "v.parquet", invalid="ignore")


def test_rows_that_lie_nowhere(tmp_path):
    shapes = [*shapely.to_wkb(files.boxes(3)), None, shapely.to_wkb(shapely.box(10, 91, 11, 92))]
    path = clay(tmp_path, files.vectors_of(0, n=5, k=768), geometry=pa.array(shapes))
    items = adopt("clay", path, tmp_path / "others", version="v0")
    with pytest.raises(
        CorruptDataError,
        match=r"row group 1: 2 rows have no place in longitude and latitude \(first: row 0\)",
    ):
        publish(items, tmp_path / "v.parquet", invalid="keep")
    publish(items, tmp_path / "v.parquet", invalid="drop")
    assert sorted(read_embeddings(tmp_path / "v.parquet").row) == [0, 1, 2]


def test_what_does_not_go_together(chips, tmp_path):
    items, _, _ = chips
    tiff = files.write_tiff(tmp_path / "2024" / "tile.tif", files.alphaearth_codes(1), nodata=-128)
    raster = adopt("alphaearth", tiff, tmp_path / "raster")
    with pytest.raises(CatalogError, match=r"vectors of 2 latent spaces cannot be compared"):
        publish([*items, *raster], tmp_path / "v.parquet")
    raster[0].assets["embeddings"].extra_fields["latent:space"] = (
        items[0].assets["embeddings"].extra_fields["latent:space"]
    )
    with pytest.raises(
        CatalogError, match=r"item '33TWN' is a table of vectors and item 'tile' a raster; publish each"
    ):
        publish([*items, *raster], tmp_path / "v.parquet")
    with pytest.raises(CatalogError, match=r"its rows are published as they are: by='cell'; got by='item'"):
        publish(items, tmp_path / "v.parquet", by="item")
    with pytest.raises(CatalogError, match=r"cannot standardise: the codec of space .* states no statistics"):
        publish(items, tmp_path / "v.parquet", standardise=True)
    path = Path(items[0].assets["embeddings"].href)
    items[0].assets["embeddings"].extra_fields["latent:time_column"] = "when"
    with pytest.raises(CorruptDataError, match=rf"{path} has no column 'when', .* adopt it again"):
        publish(items, tmp_path / "v.parquet")


# -- what was not published yet ----------------------------------------------------------------------------------


def test_what_is_only_adopted_says_how_to_publish_it(chips, tmp_path, monkeypatch):
    """The command in the message is run, and the search then succeeds."""
    items, values, catalog = chips
    monkeypatch.chdir(tmp_path)
    ways = {
        catalog: r"catalog\.json is a Catalog, and only published vectors are searched",
        catalog.parent: r"others is a catalogue, and only published",
        items[
            0
        ].get_self_href(): r"item '33TWN' has vectors as their producer wrote them, and only published",
    }
    for source, text in ways.items():
        with pytest.raises(CatalogError, match=text) as caught:
            nearest(source, values[0])
        command = str(caught.value).split("publish them first: ")[1]
        assert command.endswith(
            "33TWN.json vectors.parquet" if "item" in text else "catalog.json vectors.parquet"
        )
        done = shell(command)
        assert done.exit_code == 0, done.output
        assert nearest(tmp_path / "vectors.parquet", values[3], k=1).row[0] == 3
        (tmp_path / "vectors.parquet").unlink()
    with pytest.raises(CatalogError, match=r"item '33TWN' has vectors as their producer wrote them"):
        nearest(items[0], values[0])
    done = run("nearest", catalog, "--point=14,45")
    assert done.exit_code != 0
    assert f"publish them first: stac-latent publish {catalog} vectors.parquet" in str(done.exception)


def test_files_that_are_no_published_tables(chips, tmp_path):
    items, values, _ = chips
    with pytest.raises(
        CatalogError, match=r"33TWN.gpq has no 'latent' footer; .*stac-latent adopt PRODUCT FILE"
    ):
        nearest(items[0].assets["embeddings"].href, values[0])
    for text in ("[]", "{", '{"type": "Feature"}', '{"type": "Polygon"}', "{}"):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(CatalogError, match=r"a\.json is neither a published table nor its STAC Item"):
            nearest(tmp_path / "a.json", values[0])
    publish(items, tmp_path / "v.parquet")
    assert nearest(tmp_path / "v.parquet.json", values[2], k=1).row[0] == 2


def test_queries_that_need_a_codec_say_so(chips, tmp_path):
    items, values, _ = chips
    publish(items, tmp_path / "v.parquet", dtype="float32")
    text = r"no codec of the vectors of .*v\.parquet is at hand.*search by a vector, a place or an area, and whiten with 'table'"
    with pytest.raises(UnresolvedSpaceError, match=text):
        nearest(tmp_path / "v.parquet", np.zeros((4, 64, 64), np.float32))
    with pytest.raises(UnresolvedSpaceError, match=text):
        nearest(tmp_path / "v.parquet", values[0], whiten=True)
    with pytest.raises(
        SearchError, match=r"item '33TWN' is a table of many vectors, and no query; look for one"
    ):
        nearest(tmp_path / "v.parquet", items[0])
    area = shapely.box(14.0, 45.0, 14.1, 45.2)
    touched = shapely.intersects(files.boxes(10), area)
    best, distance = brute_force(values, values[touched].astype(np.float64).mean(axis=0), 3)
    found = nearest(tmp_path / "v.parquet", area, k=3)
    assert list(found.row) == list(best)
    np.testing.assert_allclose(found["distance"], distance, atol=1e-6)
    assert len(nearest(tmp_path / "v.parquet", values[0], whiten="table")) == 10


# -- points ------------------------------------------------------------------------------------------------------


@pytest.fixture
def points(tmp_path):
    values = files.vectors_of(2, n=8, k=64)
    columns = {f"A{i:02d}": pa.array(values[:, i].astype(float)) for i in range(64)}
    lon, lat = np.linspace(10, 11, 8), np.linspace(50, 51, 8)
    columns |= {"lon": pa.array(lon), "lat": pa.array(lat), "year": pa.array([2020, 2021] * 4)}
    path = files.write_table(tmp_path / "p.parquet", columns, {})
    publish(adopt("alphaearth-points", path, tmp_path / "others"), tmp_path / "v.parquet", dtype="float32")
    return tmp_path / "v.parquet", lon, lat, values


def test_a_place_is_a_point_of_the_table_or_names_the_nearest(points):
    path, lon, lat, values = points
    best, _ = brute_force(values, values[3], 4)
    assert list(nearest(path, (round(lon[3], 5), round(lat[3], 5)), k=4).row) == list(best)
    with pytest.raises(
        SearchError,
        match=r"its rows are points, and the nearest is 10\.142857,50\.142857: choose that, or an area",
    ):
        nearest(path, (10.15, 50.14))
    assert nearest(path, (10.142857, 50.142857), k=1).row[0] == 1
    assert list(nearest(path, values[2], k=8, datetime="2020").row % 2) == [0] * 4


def test_a_map_of_points_needs_a_resolution(points):
    path, lon, lat, _ = points
    examples = [((lon[0], lat[0]), "field"), ((lon[1], lat[1]), "town")]
    with pytest.raises(
        SearchError, match=r"is no size of a pixel \(rows that are points have no side to take"
    ):
        label(path, examples)
    drawn = label(path, examples, k=1, resolution=1000)
    assert int((drawn["label"] > 0).sum()) == 8


def test_one_point_alone(tmp_path):
    columns = {"v": pa.array([[1.0, 2.0]]), "lon": pa.array([10.0]), "lat": pa.array([50.0])}
    about = {
        "fields": {"latent:columns": ["v"], "latent:position": ["lon", "lat"]},
        "when": "2024",
        **ANY,
    }
    items = adopt("any", files.write_table(tmp_path / "p.parquet", columns, {}), tmp_path / "others", **about)
    table = publish(items, tmp_path / "v.parquet")
    assert table.geometry == {"type": "Point", "coordinates": [10.0, 50.0]}
    assert len(nearest(tmp_path / "v.parquet", (10.0, 50.0))) == 1


# -- rasters -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("product", ["alphaearth", "tessera", "tessera-zarr"])
def test_rasters_are_published_and_searched_from_the_shell(tmp_path, product):
    if product == "alphaearth":
        codes = files.alphaearth_codes(3, (64, 9, 12))
        path = files.write_tiff(tmp_path / "2024" / "tile.tif", codes, nodata=-128)
        truth = files.alphaearth_truth(codes)
    else:
        codes, scale = files.tessera_codes(3)
        write = files.write_tessera if product == "tessera" else files.write_tessera_zarr
        path, truth = write(tmp_path, codes, scale), files.tessera_truth(codes, scale)
    others, table = tmp_path / "others" / "catalog.json", tmp_path / "v.parquet"
    assert run("adopt", product, path, tmp_path / "others").exit_code == 0
    assert run("publish", others, table, "--dtype", "float32").exit_code == 0
    y, x = np.nonzero(np.isfinite(truth).all(axis=0))
    cells = truth[:, y, x].T
    query = cells[5].astype(np.float32)
    best, distance = brute_force(cells.astype(np.float32), query, 6)
    found = nearest(table, query, k=6)
    assert list(zip(found.row, found.col, strict=True)) == list(zip(y[best], x[best], strict=True))
    np.testing.assert_allclose(found["distance"], distance, atol=1e-6)
    centre = found.geometry[0].centroid
    done = run("nearest", table, f"--point={centre.x},{centre.y}", "--k", 3, "--json")
    assert [(r["row"], r["col"]) for r in json.loads(done.stdout)["rows"]] == [(y[i], x[i]) for i in best[:3]]
    (item,) = pystac.Catalog.from_file(str(others)).get_items(recursive=True)
    whole, _ = brute_force(cells, cells.mean(axis=0), 1)
    assert (nearest(table, item, k=1).row[0], nearest(table, item, k=1).col[0]) == (y[whole[0]], x[whole[0]])
    with pytest.raises(
        CatalogError, match=r"has a raster of latents, and only published vectors are searched"
    ):
        nearest(item, query)
    assert run("publish", others, tmp_path / "p.parquet", "--by", "patch", "--patch", "3,3").exit_code == 0


def test_a_table_on_a_grid_gives_rows_or_patches(tmp_path):
    y, x = (v.ravel() for v in np.mgrid[:6, :4])
    values = files.vectors_of(0, n=24, k=3)
    lon, lat = 14 + 0.01 * (x + 0.5), 46 - 0.01 * (y + 0.5)
    columns = {
        "v": pa.array(values.tolist(), pa.list_(pa.float32())),
        "lon": pa.array(lon),
        "lat": pa.array(lat),
    }
    path = files.write_table(tmp_path / "p.parquet", columns, {})
    about = {
        "fields": {"latent:columns": ["v"], "latent:position": ["lon", "lat"]},
        "when": "2024",
        **ANY,
    }
    items = adopt("any", path, tmp_path / "others", crs="EPSG:4326", **about)
    publish(items, tmp_path / "rows.parquet", dtype="float32")
    assert len(read_embeddings(tmp_path / "rows.parquet")) == 24
    publish(items, tmp_path / "patches.parquet", dtype="float32", by="patch", patch=(6, 4))
    rows = read_embeddings(tmp_path / "patches.parquet")
    total = (np.stack(list(rows.vector)) * rows.valid.to_numpy()[:, None]).sum(axis=0)
    np.testing.assert_allclose(total, values.sum(axis=0) / 24, atol=1e-6)


# -- real samples ------------------------------------------------------------------------------------------------


def test_real_clay(tmp_path):
    path = files.shared("embeddings_survey", "clay", "03WVN_20220610_20220610_v001.gpq")
    items = adopt("clay", path, tmp_path / "others", version="v0")
    publish(items, tmp_path / "v.parquet", dtype="float32")
    raw = pq.read_table(path)
    values = np.array(raw["embeddings"].to_pylist(), np.float32)
    shapes = shapely.from_wkb(raw["geometry"].to_numpy())
    for row in (0, 123, 416):
        best, distance = brute_force(values, values[row], 10)
        found = nearest(tmp_path / "v.parquet", values[row], k=10)
        assert list(found.row) == list(best)
        np.testing.assert_allclose(found["distance"], distance, atol=1e-9)
        assert shapely.equals(found.geometry.to_numpy(), shapes[best]).all()


def test_real_points_of_alphaearth(tmp_path):
    path = files.shared("alphaearth_points", "alphaearth_amazon_points.parquet")
    items = adopt("alphaearth-points", path, tmp_path / "others")
    publish(items, tmp_path / "v.parquet", dtype="float32")
    raw = pq.read_table(path)
    names = items[0].assets["embeddings"].extra_fields["latent:columns"]
    values = np.stack([raw[n].to_numpy() for n in names], axis=1).astype(np.float32)
    lon, lat, year = (raw[n].to_numpy() for n in ("lon", "lat", "year"))
    best, distance = brute_force(values, values[17], 10)
    found = nearest(tmp_path / "v.parquet", (lon[17], lat[17]), k=10)
    assert list(found.row) == list(best)
    np.testing.assert_allclose(found["distance"], distance, atol=1e-9)
    assert list(found.datetime.dt.year) == list(year[best])


def test_real_planet_leaves_out_rows_without_a_vector(tmp_path):
    folder = files.shared("embeddings_survey", "planet")
    path = next(p for p in sorted(folder.iterdir()) if "parquet" in p.suffix or p.suffix == ".gpq")
    items = adopt("planet", path, tmp_path / "others", version="1")
    done = run(
        "publish", tmp_path / "others" / "catalog.json", tmp_path / "v.parquet", "--invalid", "drop", "--json"
    )
    assert json.loads(done.stdout)["rows"] == len(load_table(items, invalid="drop")) == 3
