"""Items of the embeddings extension, in and out; the command line; real samples where they are at hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import adopt_support as files
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pystac
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox
from typer.testing import CliRunner

from stac_latent import adopt, encode, load, load_table, publish
from stac_latent.catalog.adopt.emb_export import export_emb
from stac_latent.cli import app
from stac_latent.errors import CatalogError
from stac_latent.validation import validate

ROOT = Path(__file__).parents[2]
WHERE = {"model": "https://example.com/model", "source_data": "https://example.com/data"}


@pytest.fixture(scope="module")
def schemas(tmp_path_factory):
    """Schemas of emb v0.0.1 and of what it refers to. Those of STAC 1.0 are not at hand: 1.1's stand in, with that version."""
    if not files.SCHEMAS.exists():
        pytest.skip("the schema of the embeddings extension is not at hand (shared/schemas)")
    folder = tmp_path_factory.mktemp("schemas")
    shutil.copytree(files.SCHEMAS, folder, dirs_exist_ok=True)
    index = json.loads((folder / "index.json").read_text())
    core = Path(pystac.__file__).parent / "validation" / "jsonschemas" / "stac-spec" / "v1.1.0"
    for path in core.rglob("*.json"):
        doc = json.loads(path.read_text().replace("v1.1.0", "v1.0.0").replace('"1.1.0"', '"1.0.0"'))
        room = path.stem if path.stem in ("catalog", "collection") else "item"
        doc["$id"] = f"https://schemas.stacspec.org/v1.0.0/{room}-spec/json-schema/{path.name}"
        (folder / f"core-{path.name}").write_text(json.dumps(doc))
        index[doc["$id"]] = f"core-{path.name}"
    (folder / "index.json").write_text(json.dumps(index))
    return folder


def problems(path, schemas):
    return [str(p) for p in validate(path, schemas)]


def linear_item(folder, quantization, container="tif"):
    """An Item and a Collection as the extension's own examples have them, with a file."""
    codes = np.random.default_rng(0).integers(-120, 120, (6, 8, 9)).astype(np.int8)
    files.write_tiff(folder / "e.tif", codes)
    spec = "https://stac-extensions.github.io/embeddings/v0.0.1/schema.json"
    collection = {
        "type": "Collection", "stac_version": "1.0.0", "stac_extensions": [spec], "id": "c", "description": "d", "license": "CC0-1.0",
        "extent": {"spatial": {"bbox": [[14, 44, 16, 46]]}, "temporal": {"interval": [["2024-01-01T00:00:00Z", None]]}},
        "emb:type": "pixel", "emb:dimensions": 6, "data_type": "float32",
        "links": [
            {"rel": "emb:model", "href": "https://example.com/m"}, {"rel": "emb:source-data", "href": "https://example.com/s"},
            {"rel": "item", "href": "./i.json"},
        ],
    }  # fmt: skip
    item = {
        "type": "Feature", "stac_version": "1.0.0", "stac_extensions": [spec], "id": "i", "collection": "c", "bbox": [14, 44, 16, 46],
        "geometry": {"type": "Polygon", "coordinates": [[[14, 44], [16, 44], [16, 46], [14, 46], [14, 44]]]},
        "properties": {"datetime": "2024-05-01T10:32:45Z", **({} if quantization is None else {"emb:quantization": quantization})},
        "links": [{"rel": "collection", "href": "./collection.json"}],
        "assets": {"embeddings": {"href": "./e.tif", "type": "image/tiff; application=geotiff", "roles": ["data"]}},
    }  # fmt: skip
    (folder / "collection.json").write_text(json.dumps(collection))
    (folder / "i.json").write_text(json.dumps(item))
    return codes


@pytest.mark.parametrize("start", ["collection.json", "i.json"])
def test_items_of_the_extension_load(tmp_path, start):
    said = {
        "method": "linear", "original_dtype": "float32", "quantized_dtype": "int8", "scale": [0.02], "offset": [-1.2]
    }  # fmt: skip
    codes = linear_item(tmp_path, said)
    (item,) = adopt("emb", tmp_path / start, tmp_path / "catalog")
    assert (item.id, item.bbox, item.datetime.year) == ("i", [14, 44, 16, 46], 2024)
    found = load(item, upto="latent")["latent"].values[0]
    np.testing.assert_allclose(found, codes * 0.02 - 1.2, rtol=1e-6, atol=1e-6)


def test_a_free_text_of_a_method_is_not_guessed(tmp_path):
    linear_item(tmp_path, {"method": "our own", "original_dtype": "float32"})
    with pytest.raises(
        CatalogError,
        match=r"emb:quantization 'our own' is not known .*or describe the file with product 'any'",
    ):
        adopt("emb", tmp_path / "i.json", tmp_path / "catalog")
    linear_item(tmp_path, None)
    with pytest.raises(CatalogError, match=r"holds int8, and nothing says how these codes become numbers"):
        adopt("emb", tmp_path / "i.json", tmp_path / "catalog")
    doc = json.loads((tmp_path / "i.json").read_text())
    (tmp_path / "i.json").write_text(json.dumps({**doc, "assets": {"e": doc["assets"]["embeddings"]}}))
    with pytest.raises(
        CatalogError, match=r"has no asset 'embeddings', which that extension needs \(has: e\)"
    ):
        adopt("emb", tmp_path / "i.json", tmp_path / "catalog")
    (tmp_path / "i.json").write_text(json.dumps({**doc, "stac_extensions": []}))
    with pytest.raises(CatalogError, match=r"does not declare the embeddings extension"):
        adopt("emb", tmp_path / "i.json", tmp_path / "catalog")
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(CatalogError, match=r"is no STAC document"):
        adopt("emb", tmp_path / "x.json", tmp_path / "catalog")


def every_kind(tmp_path, sample):
    """An adopted raster by a power, one with scales, a table, and embeddings of this package, as cells and as a table."""
    tiff = files.write_tiff(tmp_path / "2024" / "a.tiff", files.alphaearth_codes(0), nodata=-128)
    tile = files.write_tessera(tmp_path, *files.tessera_codes(0))
    gpq = files.write_table(
        tmp_path / "b.gpq", files.clay_columns(files.vectors_of(0, 4, 768)), files.geo_footer()
    )
    items = [
        *adopt("alphaearth", tiff, tmp_path / "c"), *adopt("tessera", tile, tmp_path / "c"), *adopt("clay", gpq, tmp_path / "c", version="v0")
    ]  # fmt: skip
    (own,) = encode(sample, "s2-10m-embed", tmp_path / "own", asset="vectors")
    table = publish(own, tmp_path / "own.parquet", asset="vectors", by="patch", dtype="int8")
    return [*items, own, table]


def test_export_is_valid_and_comes_back(tmp_path, sample, schemas):
    items = every_kind(tmp_path, sample)
    made = export_emb(items, tmp_path / "emb", **WHERE)
    assert len(made) == len(items)
    documents = sorted((tmp_path / "emb").rglob("*.json"))
    assert len(documents) == 1 + len({s for i in items for s in i.properties["latent:spaces"]}) + len(items)
    assert [p for path in documents for p in problems(path, schemas)] == []
    own = next(i for i in made if i.id == "spyndex-s2-sample")
    assert load(own, upto="latent").equals(load(items[3], upto="latent"))
    with pytest.raises(CatalogError, match=r"'spyndex-s2-sample' has a store of latents that loads as it is"):
        adopt("emb", own.get_self_href(), tmp_path / "back")
    back = adopt("emb", [i.get_self_href() for i in made if i is not own], tmp_path / "back")
    before = {i.id: i for i in items}
    for item in back:
        source = before[item.id]
        assert item.properties["latent:spaces"] == source.properties["latent:spaces"]
        if "row" in item.assets["embeddings"].extra_fields["latent:dim_order"]:
            a, b = load_table(item), load_table(source)
            assert np.array_equal(np.stack(list(a.vector)), np.stack(list(b.vector)))
        else:
            assert np.array_equal(
                load(item, upto="latent")["latent"], load(source, upto="latent")["latent"], equal_nan=True
            )


def test_the_validation_sees_what_is_wrong(tmp_path, schemas):
    linear_item(tmp_path, None)
    assert problems(tmp_path / "i.json", schemas) == []
    doc = json.loads((tmp_path / "i.json").read_text())
    doc["assets"]["embeddings"]["emb:type"] = "pixel"
    assert problems(doc, schemas)
    doc = json.loads((tmp_path / "collection.json").read_text())
    assert problems(doc, schemas) == []
    assert problems({**doc, "links": doc["links"][1:]}, schemas)
    assert problems({k: v for k, v in doc.items() if k != "emb:type"}, schemas)


def test_export_needs_what_the_extension_needs(tmp_path):
    gpq = files.write_table(
        tmp_path / "b.parquet", files.earth_index_columns(files.vectors_of(0)), files.earth_index_footer()
    )
    (item,) = adopt("earth-index", gpq, tmp_path / "c")
    with pytest.raises(
        CatalogError, match=r"the embeddings extension requires emb:model: state it with model=, or --model"
    ):
        export_emb(item, tmp_path / "emb")
    item.assets["other"] = pystac.Asset("a.tif", extra_fields=dict(item.assets["embeddings"].extra_fields))
    with pytest.raises(
        CatalogError, match=r"has several embeddings \(embeddings, other\); choose with asset="
    ):
        export_emb(item, tmp_path / "emb", **WHERE)
    with pytest.raises(CatalogError, match=r"has no embedding 'colour'"):
        export_emb(item, tmp_path / "emb", asset="colour", **WHERE)


# -- command line


def run(*args):
    return CliRunner().invoke(app, [str(a) for a in args])


def test_adopt_from_a_shell(tmp_path):
    listed = json.loads(run("adopt", "--list", "--json").stdout)
    assert {"alphaearth", "tessera", "any"} <= {r["name"] for r in listed}
    assert "alphaearth" in run("adopt", "--list").stdout
    codes = files.alphaearth_codes(0)
    path = files.write_tiff(tmp_path / "2024" / "a.tiff", codes, nodata=-128)
    done = run("adopt", "alphaearth", path, tmp_path / "c", "--json")
    assert done.exit_code == 0, done.output
    (row,) = json.loads(done.stdout)["items"]
    assert row["shape"] == [64, 11, 13]
    done = run("adopt", "alphaearth", path, tmp_path / "c")
    assert "power" in done.stdout
    shown = run(
        "load",
        tmp_path / "c" / "catalog.json",
        "--upto",
        "latent",
        "--resampling",
        "bilinear",
        "--crs",
        "EPSG:3857",
        "--resolution",
        20,
    )
    assert "channel: 64" in shown.stdout
    assert run("info", row["href"], "--json").exit_code == 0
    done = run("export", tmp_path / "c" / "catalog.json", "--emb", tmp_path / "emb", "--json")
    assert json.loads(done.stdout)["items"] == ["a"]
    assert run("export", tmp_path / "c" / "catalog.json", tmp_path / "emb").exit_code == 2
    assert run("adopt", "alphaearth").exit_code == 2


def test_a_product_that_is_unknown_is_described_by_options(tmp_path):
    codes = np.random.default_rng(0).integers(0, 255, (7, 8, 3)).astype(np.uint8)
    np.save(tmp_path / "mine.npy", codes)
    about = ("--producer", "me", "--name", "mine", "--model-version", "1", "--datetime", "2024-06-01")
    how = (
        "--quantization",
        "linear",
        "--scale",
        "0.5,1,2",
        "--offset",
        "-1",
        "--nodata",
        "7",
        "--dim-order",
        "y,x,channel",
    )
    where = ("--crs", files.UTM, "--transform", "10,0,500000,0,-10,5000000")
    done = run("adopt", "any", tmp_path / "mine.npy", tmp_path / "c", *about, *how, *where, "--json")
    assert done.exit_code == 0, done.output
    item = pystac.Item.from_file(json.loads(done.stdout)["items"][0]["href"])
    truth = np.where(codes == 7, np.nan, codes * [0.5, 1, 2] - 1).transpose(2, 0, 1)
    assert np.array_equal(
        load(item, upto="latent")["latent"].values[0], truth.astype(np.float32), equal_nan=True
    )
    assert run("adopt", "any", tmp_path / "mine.npy", tmp_path / "c", "--scale", "a").exit_code == 2


# -- real samples


@pytest.mark.shared
def test_real_clay(tmp_path):
    path = files.shared("embeddings_survey", "clay", "03WVN_20220610_20220610_v001.gpq")
    (item,) = adopt("clay", path, tmp_path / "c")
    assert item.datetime.isoformat() == "2022-06-10T00:00:00+00:00"
    table = load_table(item)
    raw = pq.read_table(path)
    assert np.array_equal(np.stack(list(table.vector)), np.array(raw["embeddings"].to_pylist(), np.float32))
    assert list(table["source_url"]) == raw["source_url"].to_pylist()
    some = load_table(item, bbox=(-166.5, 65, -166, 65.3))
    assert 0 < len(some) < len(table) == 417


@pytest.mark.shared
def test_real_planet_says_which_rows_have_no_vector(tmp_path):
    path = files.shared("embeddings_survey", "planet", "sample_embeddings.parquet")
    with pytest.raises(
        CatalogError, match=r"product 'planet' does not say the version of its model.*--model-version"
    ):
        adopt("planet", path, tmp_path / "c")
    (item,) = adopt("planet", path, tmp_path / "c", version="sample")
    with pytest.raises(ValueError, match=r"5 rows, 2 without a vector \(first: row 1\)"):
        load_table(item)
    table = load_table(item, invalid="drop")
    raw = [v for v in pq.read_table(path)["embedding"].to_pylist() if v is not None]
    assert np.array_equal(np.stack(list(table.vector)), np.array(raw, np.float32))
    with pytest.raises(
        CatalogError,
        match="declares its geometry in WGS 84 / Pseudo-Mercator, and holds what look like degrees",
    ):
        adopt("any", path, tmp_path / "d", when="2018", producer="p", name="n", version="1")


@pytest.mark.shared
def test_real_points_of_alphaearth(tmp_path):
    path = files.shared("alphaearth_points", "alphaearth_amazon_points.parquet")
    (item,) = adopt("alphaearth-points", path, tmp_path / "c")
    table = load_table(item)
    raw = pq.read_table(path)
    truth = np.stack([raw[f"coarse_emb_{i}"].to_numpy() for i in range(64)], axis=1).astype(np.float32)
    assert np.array_equal(np.stack(list(table.vector)), truth)
    tile = files.write_tiff(tmp_path / "2024" / "a.tiff", files.alphaearth_codes(0), nodata=-128)
    assert (
        adopt("alphaearth", tile, tmp_path / "c")[0].properties["latent:spaces"]
        == item.properties["latent:spaces"]
    )


@pytest.mark.shared
def test_real_attributes_of_tessera(tmp_path):
    """A store that is generated round the real metadata of a year and a zone."""
    import zarr

    year = json.loads(files.shared("tessera_zarr_convention", "year-store-root.json").read_text())[
        "attributes"
    ]
    zone = json.loads(files.shared("tessera_zarr_convention", "zone-group.json").read_text())["attributes"]
    root = zarr.open_group(tmp_path / "2024.zarr", mode="w", attributes=year)
    group = root.create_group("utm30", attributes=zone)
    h, w = zone["spatial:shape"]
    shapes = {"embeddings": ((h, w, 128), "int8", 0), "scales": ((h, w), "float32", np.nan)}
    for name, (shape, dtype, fill) in shapes.items():
        group.create_array(name, shape=shape, dtype=dtype, chunks=(64, 64, *shape[2:]), fill_value=fill)
    codes, scale = files.tessera_codes(0, (20, 30, 128))
    group["embeddings"][4990:, 5970:], group["scales"][4990:, 5970:] = codes[:10], scale[:10]
    (item,) = adopt("tessera-zarr", tmp_path / "2024.zarr", tmp_path / "c")
    assert item.assets["embeddings"].extra_fields["proj:code"] == zone["proj:code"]
    assert load(item, upto="latent", chunks={"y": 1000, "x": 1000})["latent"].shape == (1, 128, h, w)
    whole = GeoBox((h, w), Affine(*zone["spatial:transform"]), zone["proj:code"])
    part = load(item, upto="latent", geobox=whole[-10:, -30:])["latent"][0]
    assert np.array_equal(part, files.tessera_truth(codes, scale)[:, :10], equal_nan=True)
    assert (float(part.x[-1]), float(part.y[-1])) == (
        zone["spatial:bbox"][2] - 5,
        zone["spatial:bbox"][1] + 5,
    )
    assert np.isnan(load(item, upto="latent", geobox=whole[:5, :5])["latent"]).all()


@pytest.mark.shared
def test_real_footer_of_earth_index(tmp_path):
    """A table that is generated round the real metadata of the producer."""
    emb = json.loads(files.shared("embeddings_survey", "earth_index", "sample_metadata.json").read_text())
    values = files.vectors_of(0, k=384)
    path = files.write_table(
        tmp_path / "21MNT.parquet", files.earth_index_columns(values), {**files.geo_footer(), "emb": emb}
    )
    (item,) = adopt("earth-index", path, tmp_path / "c")
    assert item.properties["start_datetime"][:10] == emb["start_datetime"][:10]
    assert np.array_equal(np.stack(list(load_table(item).vector)), values)


@pytest.mark.shared
def test_real_examples_of_the_extension(tmp_path, schemas):
    for name in ("item.json", "collection.json"):
        found = validate(files.shared("embeddings_spec", name), schemas)
        assert [p for p in found if p.keyword != "unavailable"] == []
        assert not any("stacspec" in p.message or "embeddings" in p.message for p in found)
    doc = json.loads(files.shared("embeddings_spec", "item.json").read_text())
    doc["links"] = [link for link in doc["links"] if link["rel"] not in ("self", "root", "collection")]
    doc["assets"]["embeddings"]["href"] = "./e.parquet"
    (tmp_path / "item.json").write_text(json.dumps(doc))
    codes = np.random.default_rng(0).integers(-100, 100, (4, 768))
    columns = files.clay_columns(codes)
    columns["embeddings"] = columns["embeddings"].cast(pa.list_(pa.int8()))
    files.write_table(tmp_path / "e.parquet", columns, files.geo_footer())
    (item,) = adopt("emb", tmp_path / "item.json", tmp_path / "c")
    assert item.id == doc["id"]
    np.testing.assert_allclose(
        np.stack(list(load_table(item).vector)), codes * 0.02 - 1.2, rtol=1e-6, atol=1e-6
    )
