"""``cube`` and ``points`` from a shell: what they write, say and refuse."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import xarray as xr

import stac_latent

SAMPLE = Path(__file__).parents[2] / "catalogs" / "sample" / "catalog.json"
LAT, LON = 40.635, -73.803
PLACE = ("--lat", LAT, "--lon", LON)


def test_a_minicube_is_written_as_the_verb_gives_it(run, tmp_path):
    options = ("--asset", "latent", "--edge-size", 12, "--bands", "red,nir", "--start-date", "2020-07")
    code, out, err = run("cube", SAMPLE, "a.zarr", *PLACE, *options, "--json")
    assert code == 0, err
    said = json.loads(out)
    assert (said["sizes"], said["out"]) == ({"time": 1, "y": 12, "x": 12}, ["a.zarr"])
    assert said["attributes"]["epsg"] == 32618
    cube = stac_latent.minicube(
        str(SAMPLE), LAT, LON, asset="latent", edge_size=12, bands=["red", "nir"], start_date="2020-07"
    )
    with xr.open_zarr(tmp_path / "a.zarr", mask_and_scale=False, consolidated=False) as stored:
        np.testing.assert_array_equal(stored.red, cube.red)
        np.testing.assert_array_equal(stored["cubo:distance_from_center"], cube["cubo:distance_from_center"])
        assert dict(cube.attrs).items() <= dict(stored.attrs).items()
    code, out, err = run("cube", SAMPLE, "a.tif", *PLACE, *options)
    assert code == 0, err
    with rasterio.open(tmp_path / "a.tif") as src:
        np.testing.assert_array_equal(src.read(1), cube.red[0])
        assert src.transform == cube.odc.geobox.affine


def test_a_minicube_is_described_where_nothing_is_written(run, tmp_path):
    code, out, _ = run("cube", SAMPLE, *PLACE, "--asset", "embedding", "--upto", "latent")
    assert code == 0
    assert "latent" in out
    assert "central_lat" in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", ["csv", "geojson", "parquet", "geoparquet"])
def test_points_are_read_from_and_written_to_files(run, tmp_path, ending):
    table = pd.DataFrame(
        {"site": ["a", "b", "c"], "lon": [LON, LON + 0.002, 0.0], "lat": [LAT, LAT + 0.001, 0.0]}
    )
    frame = gpd.GeoDataFrame(
        table[["site"]], geometry=gpd.points_from_xy(table.lon, table.lat), crs="EPSG:4326"
    )
    path = tmp_path / f"t.{ending}"
    {
        "csv": lambda: table.to_csv(path), "parquet": lambda: table.to_parquet(path),
        "geojson": lambda: frame.to_file(path), "geoparquet": lambda: frame.to_parquet(path),
    }[ending]()  # fmt: skip
    code, out, err = run(
        "points", SAMPLE, path, "out.parquet", "--asset", "latent", "--bands", "red", "--point", "site"
    )
    assert code == 0, err
    assert out == "5 rows (4 data, 1 outside) of 3 points and 2 items -> out.parquet\n"
    expected = stac_latent.points(str(SAMPLE), table, "red", asset="latent", point="site")
    stored = pd.read_parquet(tmp_path / "out.parquet")
    assert list(stored.point) == list(expected.point)
    np.testing.assert_array_equal(stored.red, expected.red)


def test_values_as_csv_and_vectors_as_parquet(run, tmp_path):
    pd.DataFrame({"lon": [LON], "lat": [LAT], "when": ["2020-06-30"]}).to_csv(tmp_path / "t.csv")
    code, out, err = run(
        "points", SAMPLE, "t.csv", "a.csv", "--asset", "latent", "--time", "when", "--tolerance", "5D", "--physical", "--json"
    )  # fmt: skip
    assert code == 0, err
    assert json.loads(out) == {"rows": 1, "points": 1, "items": 1, "status": {"data": 1}, "out": "a.csv"}
    assert pd.read_csv(tmp_path / "a.csv").item[0] == "synthetic-later"
    code, _, err = run("points", SAMPLE, "t.csv", "v.parquet", "--asset", "embedding", "--upto", "latent")
    assert code == 0, err
    assert pd.read_parquet(tmp_path / "v.parquet")["latent"][0].shape == (32,)


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        (("cube", SAMPLE, "--lat", 100, "--lon", 3), 1, "did you mean lat=3, lon=100?"),
        (("cube", SAMPLE, "x.png", *PLACE), 1, "x.png"),
        (("cube", SAMPLE, *PLACE, "--upto", "pixels"), 2, "--upto is field or latent"),
        (("cube", SAMPLE, *PLACE, "--collections", "none"), 1, "it has none elsewhere either"),
        (("points", SAMPLE, "none.csv", "o.csv"), 1, "no such file: none.csv"),
        (("points", SAMPLE, "t.xls", "o.csv"), 1, "table 't.xls' must end with .csv"),
        (("points", SAMPLE, "t.csv", "o.txt"), 1, "'o.txt' must end with .csv or .parquet"),
        (
            ("points", SAMPLE, "t.csv", "o.csv", "--upto", "latent"),
            1,
            "a CSV file holds no vectors; write a .parquet",
        ),
        (("points", SAMPLE, "t.csv", "t.csv"), 1, "t.csv exists; pass --overwrite"),
        (("points", SAMPLE, "t.csv", "o.csv", "--asset", "latent"), 1, "(did you mean 'lonn'?)"),
        (("points", SAMPLE, "bad.parquet", "o.csv"), 1, "table 'bad.parquet' cannot be read"),
        (("points", SAMPLE, "empty.csv", "o.csv"), 1, "table 'empty.csv' cannot be read: EmptyDataError"),
    ],
)
def test_bad_input_is_a_message(run, tmp_path, args, code, text):
    pd.DataFrame({"lonn": [LON], "lat": [LAT]}).to_csv(tmp_path / "t.csv")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "empty.csv").write_text("")
    got, _, err = run(*args)
    assert got == code
    assert text in " ".join(err.split()).replace("│ ", "")
    assert not (tmp_path / "o.csv").exists()
