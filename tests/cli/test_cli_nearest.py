"""The commands that search published vectors, on the sample that ships."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio
from nearest_support import OTHER, brute, clustered, write

import stac_latent

ROOT = Path(__file__).parents[2]
CATALOG = ROOT / "catalogs" / "sample" / "catalog.json"
PLACE = (-73.80, 40.63)


@pytest.fixture(scope="module")
def scene():
    (item,) = stac_latent.search(CATALOG, ids=["spyndex-s2-sample"])
    return item


@pytest.fixture(scope="module")
def cells(tmp_path_factory, scene):
    """Cells of the sample's embedding, standardised and not."""
    folder = tmp_path_factory.mktemp("cells")
    for name, standardise in (("plain", False), ("standard", True)):
        stac_latent.publish(
            scene, folder / f"{name}.parquet", asset="embedding", standardise=standardise, dtype="int8"
        )
    return folder


def test_nearest_by_point(run, cells):
    code, out, _ = run(
        "nearest",
        cells / "standard.parquet",
        "--point=-73.80,40.63",
        "--k",
        3,
        "--where",
        "valid > 0.9",
        "--json",
    )
    found = json.loads(out)
    assert code == 0
    assert [r["rank"] for r in found["rows"]] == [1, 2, 3]
    assert found["rows"][0]["distance"] == pytest.approx(0, abs=1e-12)
    assert found["rows"][0]["lon"] == pytest.approx(PLACE[0], abs=1e-3)
    code, out, _ = run("nearest", cells / "standard.parquet", "--point=-73.80,40.63", "--on", "2020", "-k", 2)
    assert code == 0
    assert "spyndex-s2-sample/" in out


def test_rows_and_maps_that_cannot_be_written(run, cells):
    """A file lies where their folder should be."""
    Path("taken").write_text("")
    for name in ("x.geojson", "x.parquet"):
        code, _, err = run(
            "nearest", cells / "standard.parquet", "--point=-73.80,40.63", "--out", f"taken/{name}"
        )
        assert code == 1
        assert f"could not write taken/{name} ([Errno " in " ".join(err.split())


def test_a_row_without_a_time_is_printed_with_a_blank(run, tmp_path):
    path = write(
        tmp_path / "t.parquet",
        np.eye(3, dtype=np.float32),
        times=[None, None, datetime(2024, 5, 1, tzinfo=UTC)],
    )
    np.save(tmp_path / "q.npy", np.ones(3))
    code, out, _ = run("nearest", path, "--vector", tmp_path / "q.npy")
    assert code == 0
    assert out.count("item-0/") == 3
    assert out.count("2024-05-01") == 1
    code, out, _ = run("nearest", path, "--vector", tmp_path / "q.npy", "--json")
    assert sorted(str(r["datetime"])[:10] for r in json.loads(out)["rows"]) == ["2024-05-01", "None", "None"]


def test_nearest_by_vector_area_and_item(run, cells, scene, tmp_path):
    np.save(tmp_path / "q.npy", np.ones((2, 32)))
    code, out, _ = run(
        "nearest",
        cells / "plain.parquet",
        "--vector",
        tmp_path / "q.npy",
        "-k",
        2,
        "--out",
        "near.geojson",
        "--json",
    )
    assert code == 0
    assert [r["query"] for r in json.loads(out)["rows"]] == [0, 0, 1, 1]
    code, out, _ = run("nearest", cells / "plain.parquet", "--area", "near.geojson", "-k", 2, "--json")
    assert code == 0
    item = scene.get_self_href()
    code, out, err = run("nearest", cells / "plain.parquet", "--item", item, "-k", 2, "--json")
    assert code == 1
    assert "has several latent assets" in err


def test_index_then_nearest(run, cells):
    code, out, _ = run("index", cells / "standard.parquet", "--exact")
    assert code == 0
    assert out.startswith("1,482 rows -> ")
    code, out, _ = run("index", cells / "standard.parquet", "--json")
    made = json.loads(out)
    assert code == 0
    assert made["rows"] == 1482
    assert made["recall_at_10"] > 0.97
    options = ("nearest", cells / "standard.parquet", "--point=-73.80,40.63", "--json")
    exact, found = (json.loads(run(*options, *more)[1])["rows"] for more in ((), ("--index",)))
    assert len({r["id"] for r in exact} & {r["id"] for r in found}) >= 9


def test_a_poor_index_is_told(run, tmp_path):
    values = clustered(2000, 16)
    values[17] *= 1e5
    path = write(tmp_path / "t.parquet", values, group=1 << 20)
    code, out, err = run("index", path, "--metric", "dot", "--json")
    assert (code, json.loads(out)["recall_at_10"] < 0.9) == (0, True)
    assert "for dot finds" in err
    assert "nearest looks at every row instead" in err
    np.save(tmp_path / "q.npy", values[5])
    code, out, err = run(
        "nearest", path, "--vector", tmp_path / "q.npy", "--metric", "dot", "--index", "--json"
    )
    assert code == 0
    assert "every row was looked at instead" in err
    assert [r["id"] for r in json.loads(out)["rows"]] == brute(path, values[5], "dot")[0][:10]


def test_label_writes_a_map(run, cells, tmp_path):
    features = [
        {
            "type": "Feature",
            "properties": {"label": name},
            "geometry": {"type": "Point", "coordinates": place},
        }
        for name, place in (("field", PLACE), ("town", (-73.81, 40.64)))
    ]
    (tmp_path / "points.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    code, out, _ = run(
        "label", cells / "standard.parquet", "map.tif", "--examples", "points.geojson", "--json"
    )
    assert code == 0
    counts = json.loads(out)["pixels"]
    with rasterio.open("map.tif") as file:
        drawn = file.read(1)
        assert {n: int((drawn == i).sum()) for i, n in enumerate(counts, start=1)} == counts
        assert file.crs.to_epsg() == 32618
        assert file.res == pytest.approx((80, 80), rel=1e-3)


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        (("--k", "3"), 2, "give one of --point, --item, --area, --vector; got none"),
        (("--point", "1,2", "--vector", "q.npy"), 2, "got --point, --vector"),
        (("--point=-73.80,40.63", "--whiten", "pca"), 2, "--whiten is codec or table"),
        (("--vector", "none.npy"), 1, "cannot read the query none.npy"),
        (("--point", "1,2"), 1, "lies at lon=1, lat=2"),
        (("--point=-73.80,40.63", "--out", "x.csv"), 2, "--out ends with .geojson or .parquet"),
    ],
)  # fmt: skip
def test_wrong_use(run, cells, args, code, text):
    got, _, err = run("nearest", cells / "plain.parquet", *args)
    assert got == code
    assert text in " ".join(err.replace("│", " ").split())


# -- Items, chips and the codec's statistics need the real embedder ------------------------------------------------


def test_an_item_is_the_mean_of_its_cells(cells, scene):
    from stac_latent.cube.read.reader import LatentReader

    latent = LatentReader.open(scene, "embedding").read_latent().reshape(32, -1)
    mean = np.nanmean(latent, axis=1)
    by_item = stac_latent.nearest(cells / "plain.parquet", scene, 5, asset="embedding")
    assert by_item["id"].tolist() == stac_latent.nearest(cells / "plain.parquet", mean, 5)["id"].tolist()


def test_a_chip_finds_the_cell_that_it_is_of(cells, scene):
    import odc.stac

    table = stac_latent.index.table.open_table(cells / "standard.parquet")
    raw = odc.stac.load([scene], bands=["B02", "B03", "B04", "B08"]).isel(time=0)
    import geopandas

    rows = geopandas.read_parquet(cells / "standard.parquet")
    cell = rows[(rows["row"] == 15) & (rows["col"] == 10)].to_crs(raw.odc.crs.to_wkt())
    x0, y0, x1, y1 = cell.total_bounds
    cut = raw.sel(x=slice(x0, x1), y=slice(y1, y0))
    chip = np.stack([cut[b].to_numpy() for b in ("B02", "B03", "B04", "B08")])
    assert chip.shape == (4, 8, 8)
    found = stac_latent.nearest(table, chip, 1)
    assert found["id"].iloc[0] == "spyndex-s2-sample/15/10"
    assert found["distance"].iloc[0] < 1e-3
    with pytest.raises(
        stac_latent.errors.SearchError,
        match=r"the chip has 3 bands; 's2-10m-embed' encodes 4: B02, B03, B04, B08",
    ):
        stac_latent.nearest(table, chip[:3])
    with pytest.raises(stac_latent.errors.SearchError, match=r"less than one cell of \(8, 8\)"):
        stac_latent.nearest(table, chip[:, :4])


def test_whitening_by_the_codec_is_publishing_standardised(cells):
    query = PLACE
    white = stac_latent.nearest(cells / "plain.parquet", query, 20, whiten=True)
    standard = stac_latent.nearest(cells / "standard.parquet", query, 20, whiten=True)
    assert len(set(white["id"]) & set(standard["id"])) >= 17  # int8 rounds before the one, after the other


def test_a_chip_needs_the_codec(tmp_path):
    path = write(tmp_path / "t.parquet", clustered(10, 32), space=OTHER)
    with pytest.raises(stac_latent.errors.UnresolvedSpaceError, match=OTHER):
        stac_latent.nearest(path, np.ones((4, 8, 8)))
