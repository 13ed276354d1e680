"""The page of ``write_map`` as Python writes it: what is in it, what is not, and its limits."""

from __future__ import annotations

import base64
import io
import json
import re
import sys

import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine
from core_support import make_scene, scene_field
from hypothesis import given
from hypothesis import strategies as st
from map_support import HOSTILE, SAMPLE, contents, numbers, plain, rings_of, sample_items, scattered
from odc.geo.geobox import GeoBox
from PIL import Image

import stac_latent
from stac_latent.cli import main
from stac_latent.cube.ref import LatentRef
from stac_latent.errors import CatalogError, CorruptDataError
from stac_latent.page import write
from stac_latent.page.colours import RAMP, shade
from stac_latent.page.pictures import look
from stac_latent.page.places import ROW, quantise
from stac_latent.page.shapes import UNIT, footprint, pack
from stac_latent.store.embeddings import read_every, read_table, table_size, vectors


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Vectors of the sample's embedding."""
    path = tmp_path_factory.mktemp("table") / "places.parquet"
    stac_latent.publish(sample_items(), path, asset="embedding", by="patch", patch=(2, 2), dtype="int8")
    return path


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The sample's page."""
    path = tmp_path_factory.mktemp("map") / "map.html"
    info = stac_latent.write_map(sample_items(), path, title="A <b>sample</b>")
    return info, contents(path)


# -- parts ---------------------------------------------------------------------------------------------------------

lonlat = st.tuples(st.floats(-179, 179), st.floats(-89, 89))


@given(st.lists(st.lists(lonlat, min_size=3, max_size=20), max_size=5))
def test_packed_shapes_come_back(rings):
    shapes = [shapely.Polygon(r) for r in rings]
    found = rings_of(pack([None, *shapes]), UNIT)
    assert found[0] == []
    for shape, (got,) in zip(shapes, found[1:], strict=True):
        assert np.abs(got - shapely.get_coordinates(shape)[:-1]).max() <= 0.51 * UNIT


def test_long_rings_are_simplified_and_parts_kept():
    circle = shapely.Point(10, 46).buffer(1, quad_segs=100)
    (ring,), (first, second) = rings_of(
        pack([circle, shapely.union_all([shapely.box(179, 0, 180, 1), shapely.box(-180, 0, -179, 1)])]), UNIT
    )
    assert 8 < len(ring) <= 64
    assert shapely.Polygon(ring).symmetric_difference(circle).area < 0.02 * circle.area
    assert {first[:, 0].max(), second[:, 0].max()} == {180.0, -179.0}


@pytest.mark.parametrize(
    ("geometry", "bbox", "bounds"),
    [
        (None, [11, 46, 12, 47], (11, 46, 12, 47)),
        ({"type": "Polygon"}, [11, 46, 100, 12, 47, 200], (11, 46, 12, 47)),
        ({"type": "Nonsense", "coordinates": 3}, [11, 46, 12, 47], (11, 46, 12, 47)),
        ({"type": "Point", "coordinates": [500000, 5200000]}, [11, 46, 12, 47], (11, 46, 12, 47)),
        (None, [179, -1, -179, 1], (-180, -1, 180, 1)),
        (None, ["a", 1, 2, 3], None),
        (None, [0, float("nan"), 1, 1], None),
        (None, None, None),
        ({"type": "Point", "coordinates": [11, 46, 300]}, None, (11, 46, 11, 46)),
    ],
)
def test_footprints_of_sound_and_other_items(geometry, bbox, bounds):
    item = plain("a")
    item.geometry, item.bbox = geometry, bbox
    found = footprint(item)
    assert (found if found is None else found.bounds) == bounds


@given(st.integers(2, 64), st.integers(0, 2**32 - 1))
def test_cosines_of_int8_are_close(k, seed):
    rng = np.random.default_rng(seed)
    exact = rng.normal(size=(20, k)).astype(np.float32)
    small = quantise(exact).astype(np.float64)

    def cosines(v):
        unit = v / np.linalg.norm(v, axis=1, keepdims=True)
        return unit @ unit.T

    assert np.abs(small).max(axis=1).tolist() == [127] * 20
    assert np.abs(cosines(small) - cosines(exact.astype(np.float64))).max() < 2 * np.sqrt(k) / 127


@given(st.integers(1, 400))
def test_every_nth_row(table, step):
    columns = ["item_id", "vector", "scale", "geometry"]
    whole, some = read_table(table, columns), read_every(table, [*columns, "absent"], step)
    assert table_size(table) == (whole.num_rows, vectors(whole).shape[1])
    assert some.column_names == columns
    assert some["geometry"].to_pylist() == whole["geometry"].to_pylist()[::step]
    np.testing.assert_array_equal(vectors(some), vectors(whole)[::step])
    assert b"latent" in some.schema.metadata


def test_colours_run_along_the_ramp():
    got = shade(np.array([1.0, 2.0, np.nan, 3.0]), alpha=9)
    assert got[0, :3].tolist() == list(RAMP[0])
    assert got[3, :3].tolist() == list(RAMP[-1])
    assert got[:, 3].tolist() == [9] * 4
    lightness = np.array(RAMP) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) > 10).all()


# -- pictures ------------------------------------------------------------------------------------------------------


def picture(uri):
    head, _, body = uri.partition(",")
    assert head == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(body)))


def test_looks_of_the_sample(written):
    info, data = written
    (seen,) = data["looks"].values()
    assert info.pictures == 1
    assert [name for name, _ in seen["layers"]] == ["raw", "decoded", "error"]
    raw, decoded, error = (np.asarray(picture(uri).convert("RGB"), float) for _, uri in seen["layers"])
    assert raw.shape == decoded.shape == error.shape == (300, 300, 3)
    assert np.abs(raw - decoded).mean() < 10
    assert np.abs(raw - error).mean() > 40
    assert "brightest at" in seen["notes"][0]
    (item,) = sample_items()
    grid = LatentRef.from_item(item, "latent").grid
    outline = GeoBox(grid.shape, Affine(*grid.transform), grid.crs).footprint("EPSG:4326").geom
    assert shapely.Polygon(seen["corners"]).symmetric_difference(outline).area < 1e-3 * outline.area


def test_raw_bands_of_the_item_that_another_was_derived_from():
    (coarse,) = stac_latent.search(SAMPLE / "catalog.json", ids="spyndex-s2-sample-coarse")
    assert not {"B02", "B03", "B04"} & set(coarse.assets)
    made = look(coarse, "coarse")
    assert [layer.name for layer in made.layers] == ["raw", "decoded", "error"]


def test_side_bounds_pictures():
    (item,) = sample_items()
    made = look(item, "latent", side=40)
    assert {picture(layer.uri).size for layer in made.layers} == {(40, 40)}


def test_embeddings_have_one_picture():
    (item,) = sample_items()
    made = look(item, "embedding")
    assert [layer.name for layer in made.layers] == ["latent"]
    assert "three channels" in made.notes[-1]


@pytest.fixture
def scene(tmp_path):
    """A scene with nodata, encoded; its raw files."""
    made = make_scene(tmp_path / "raw", scene_field((96, 104)))
    (item,) = stac_latent.encode(
        made.item,
        stac_latent.open_codec("dct", bands=["red", "nir"]),
        tmp_path / "cat",
        bands={"red": "red", "nir": "nir"},
    )
    return item


def test_without_raw_files_latents_take_their_place(scene):
    assert [x.name for x in look(scene, "latent").layers] == ["raw", "decoded", "error"]
    for key in ("red", "nir"):
        scene.assets[key].href = "gone.tif"
    made = look(scene, "latent")
    assert [x.name for x in made.layers] == ["decoded", "latent"]
    assert made.notes[0].startswith("The raw bands cannot be read")


def test_pixels_without_data_are_transparent(scene):
    shown = np.asarray(picture(look(scene, "latent").layers[1].uri))
    valid = scene_field((96, 104))[0] != 0
    assert shown.shape == (96, 104, 4)
    np.testing.assert_array_equal(shown[..., 3] > 127, valid)


def test_the_middle_of_large_scenes(scene):
    made = look(scene, "latent", whole=64, middle=32)
    assert picture(made.layers[0].uri).size == (32, 32)
    assert made.notes[0] == "The middle of 104 x 96 pixels."
    assert [x.name for x in made.layers] == ["raw", "decoded", "error"]


# -- the page ------------------------------------------------------------------------------------------------------


def test_the_page_asks_for_nothing(written):
    info, _ = written
    text = info.path.read_text(encoding="utf-8")
    page = re.sub(r'id="data">[^<]*<', 'id="data"><', text)
    assert re.findall(r"\b(?:https?|wss?|ftp):", page) == []
    assert re.findall(r"\b(?:src|href|srcset|action)=", page) == []
    assert (
        re.findall(r"\b(?:fetch|XMLHttpRequest|eval|innerHTML|insertAdjacentHTML|document\.write)\b", page)
        == []
    )
    assert "default-src 'none'" in page
    assert "<title>A &lt;b&gt;sample&lt;/b&gt;</title>" in page
    assert info.size == info.path.stat().st_size == len(text.encode())


def test_values_and_vectors_of_the_sample(written):
    info, data = written
    (item,) = sample_items()
    found = {m["title"]: m["values"] for m in data["measures"]}
    fields = item.assets["latent"].extra_fields
    assert found["PSNR"] == [fields["latent:psnr"]]
    assert found["Rate"] == [fields["latent:bits_per_pixel"]]
    places = data["places"]
    assert (info.vectors, info.space) == (places["count"], places["space"])
    assert numbers(places["vectors"], np.int8).size == places["count"] * places["dimensions"]
    assert len(rings_of(places["shapes"], data["unit"])) == places["count"]
    assert set(numbers(places["item"], "<i4").tolist()) == {0}


def test_equal_items_give_equal_pages(written, tmp_path):
    again = stac_latent.write_map(sample_items(), tmp_path / "map.html", title="A <b>sample</b>")
    assert again.path.read_bytes() == written[0].path.read_bytes()


def test_a_table_of_vectors(table, tmp_path):
    info = stac_latent.write_map(
        [*sample_items(), plain("b")], tmp_path / "m.html", embeddings=table, pictures=0
    )
    data = contents(info.path)
    rows, k = table_size(table)
    assert (data["places"]["count"], data["places"]["dimensions"]) == (rows, k)
    assert data["places"]["origin"] == "places.parquet, by patches of 2 x 2 cells"
    kept = numbers(data["places"]["vectors"], np.int8).reshape(rows, k)
    np.testing.assert_array_equal(kept, quantise(vectors(read_table(table))))
    other = stac_latent.write_map([plain("b")], tmp_path / "n.html", embeddings=table)
    assert set(numbers(contents(other.path)["places"]["item"], "<i4").tolist()) == {-1}


def test_int8_finds_what_the_table_has(tmp_path):
    """Ten nearest by the page's vectors against the exact search of the published float32."""
    stac_latent.publish(
        sample_items(), tmp_path / "t.parquet", asset="embedding", standardise=True, dtype="float32"
    )
    made = write.places_of_table(tmp_path / "t.parquet", [], 1 << 24)
    unit = made.vectors / np.linalg.norm(made.vectors.astype(np.float64), axis=1, keepdims=True)
    queries = np.arange(0, len(unit), 50)
    exact = stac_latent.nearest(
        tmp_path / "t.parquet", vectors(read_table(tmp_path / "t.parquet"))[queries], k=11
    )
    ids = np.array(read_table(tmp_path / "t.parquet", ["id"])["id"].to_pylist())
    shared = [
        len(set(ids[np.argsort(-(unit @ unit[q]))[:11]]) & set(exact[exact["query"] == n]["id"]))
        for n, q in enumerate(queries)
    ]
    assert np.mean(shared) / 11 > 0.97


def test_tables_that_items_describe(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(30, 5)).astype(np.float32)
    values[3] = 0
    points = shapely.points(rng.uniform(10, 12, 30), rng.uniform(45, 47, 30))
    geopandas.GeoDataFrame({"embedding": list(values)}, geometry=points, crs="OGC:CRS84").to_parquet(
        tmp_path / "v.parquet"
    )
    items = stac_latent.adopt(
        "any", tmp_path / "v.parquet", tmp_path / "cat", when="2024", producer="someone", name="model", version="1",
        fields={"latent:columns": ["embedding"], "latent:quantization": "none"},
    )  # fmt: skip
    assert stac_latent.load_table(items, [], invalid="drop").columns.tolist() == [
        "item_id",
        "vector",
        "geometry",
    ]
    info = stac_latent.write_map(items, tmp_path / "m.html")
    data = contents(info.path)["places"]
    assert (info.vectors, info.space) == (29, items[0].properties["latent:spaces"][0])
    kept = numbers(data["vectors"], np.int8).reshape(29, 5)
    np.testing.assert_array_equal(kept, quantise(np.delete(values, 3, axis=0)))
    (first, *_), *_ = rings_of(data["shapes"], UNIT)
    np.testing.assert_allclose(first, shapely.get_coordinates(points[0]), atol=UNIT)
    assert set(numbers(data["item"], "<i4").tolist()) == {0}


def test_large_tables_are_thinned(table):
    rows, k = table_size(table)
    made = write.places_of_table(table, [], -(-(k + ROW) * rows // 3))
    assert len(made.vectors) == -(-rows // 3)
    assert made.notes == (
        f"{len(made.vectors):,} of {rows:,} vectors, evenly spaced along the table, to keep this page small.",
    )


def test_what_catalogues_say_is_data_alone(tmp_path):
    items = [plain(text) for text in HOSTILE]
    for item, text in zip(items, HOSTILE, strict=True):
        item.collection_id = text
        item.properties |= {"latent:psnr": text, "latent:sam": float("nan"), "latent:max_error": True}
    items[0].properties["latent:psnr"] = 40
    info = stac_latent.write_map(items, tmp_path / "m.html", title=HOSTILE[0])
    raw = info.path.read_bytes()
    assert b"pwned" not in re.sub(rb"<title>.*?</title>", b"", raw)
    assert raw.count(b"<script") == raw.count(b"</script>") == 2
    data = contents(info.path)
    assert data["id"] == [text.replace("\ud800", "?") for text in HOSTILE]
    assert data["measures"] == [{"title": "PSNR", "unit": "dB", "values": [40, None, None, None, None]}]


def test_text_is_cut(tmp_path):
    info = stac_latent.write_map([plain("x" * 10**6)], tmp_path / "m.html")
    assert contents(info.path)["id"] == ["x" * 199 + "…"]


def test_items_without_a_footprint_are_listed(tmp_path):
    lost = plain("lost")
    lost.geometry = lost.bbox = None
    info = stac_latent.write_map([plain("a"), lost], tmp_path / "m.html")
    assert (info.items, info.placed) == (2, 1)
    assert "1 of 2 items have no footprint in degrees; they are in the list only" in info.notes


# -- limits and bad input ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dest": "map.png"}, "dest is the path of a file, such as 'map.html'"),
        ({"side": 4}, "side is between 32 and 2048; got 4"),
        ({"pictures": -1}, "pictures is between 0 and 20000; got -1"),
        ({"max_mib": 0}, "max_mib is between 0.25 and 512; got 0"),
        ({"asset": "other"}, "no item has a latent asset 'other' to show"),
        ({"embeddings": "other"}, "no item has an asset 'other' to find similar places with"),
        ({"embeddings": "gone.parquet"}, "no embeddings file at gone.parquet"),
    ],
)
def test_arguments_out_of_range(options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CatalogError, match=re.escape(message)):
        stac_latent.write_map(sample_items(), **{"dest": "map.html", **options})
    assert list(tmp_path.iterdir()) == []


def test_too_many_items(tmp_path):
    with pytest.raises(
        CatalogError, match="20,001 items are too many for one page, which holds 20,000; narrow the search"
    ):
        stac_latent.write_map([plain("a")] * 20_001, tmp_path / "m.html")


def test_nothing_to_map(tmp_path):
    lost = plain("lost")
    lost.geometry = lost.bbox = None
    with pytest.raises(CatalogError, match="none of 1 items has a footprint"):
        stac_latent.write_map([lost], tmp_path / "m.html")


def test_the_page_keeps_to_its_size(tmp_path):
    whole = stac_latent.write_map(scattered(10_000), tmp_path / "m.html")
    assert (whole.placed, whole.size < 1 << 20) == (10_000, True)
    with pytest.raises(
        CatalogError, match=r"10000 footprints alone take more than max_mib=0.25 MiB; allow more"
    ):
        stac_latent.write_map(scattered(10_000), tmp_path / "m.html", max_mib=0.25)
    info = stac_latent.write_map(sample_items() * 12, tmp_path / "m.html", max_mib=0.5)
    assert 0 < info.pictures < 12
    assert info.size <= 0.5 * (1 << 20)
    assert any(f"pictures of {info.pictures} of 12 items fit into this page" in note for note in info.notes)


def test_the_first_pictures_only(tmp_path):
    info = stac_latent.write_map(sample_items() * 3, tmp_path / "m.html", pictures=1, embeddings="none")
    assert (info.pictures, info.vectors) == (1, 0)
    assert info.notes == ("the first 1 of 3 items with latents have pictures; see pictures",)


def test_two_decoders_need_a_choice(tmp_path):
    (item,) = sample_items()
    item.assets["small"] = item.assets.pop("latent")
    with pytest.raises(
        CatalogError, match="several assets that decode: plain, small; choose the one to look at with asset="
    ):
        stac_latent.write_map(item, tmp_path / "m.html")


def test_broken_items_do_not_break_the_page(tmp_path):
    good, bad = sample_items() + sample_items()
    bad.id = "bad"
    for key in ("latent", "embedding"):
        bad.assets[key].href = str(tmp_path / "gone.zarr")
    info = stac_latent.write_map([good, bad], tmp_path / "m.html")
    assert info.pictures == 1
    assert any(note.startswith("no picture of item 'bad': ") for note in info.notes)
    assert any(note.startswith("No similar places: ") for note in info.notes)
    with pytest.raises((CatalogError, CorruptDataError)):
        stac_latent.write_map([good, bad], tmp_path / "m.html", embeddings="embedding")


def test_vectors_of_two_spaces_never_meet(tmp_path):
    good, other = sample_items() + sample_items()
    other.id = "other"
    other.assets["embedding"].extra_fields["latent:space"] = "sha256:" + "b" * 64
    with pytest.raises(CatalogError, match="vectors of 2 latent spaces cannot be compared"):
        stac_latent.write_map([good, other], tmp_path / "m.html", embeddings="embedding")


def test_vectors_without_a_direction(table, tmp_path):
    import pyarrow.parquet as pq

    rows = pq.read_table(table)
    at = rows.column_names.index("scale")
    rows = rows.set_column(at, rows.schema.field(at), [np.zeros(rows.num_rows, np.float32)])
    pq.write_table(rows, tmp_path / "zero.parquet")
    with pytest.raises(CatalogError, match=r"has a direction .* rows, all zero or not finite"):
        stac_latent.write_map(sample_items(), tmp_path / "m.html", embeddings=tmp_path / "zero.parquet")


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(CatalogError, match=r"could not write .*; choose another place"):
        stac_latent.write_map([plain("a")], tmp_path / "file" / "m.html")


# -- shell and notebook --------------------------------------------------------------------------------------------


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = [
        "stac-latent",
        "map",
        str(SAMPLE / "catalog.json"),
        "--ids",
        "spyndex-s2-sample",
        "m.html",
        "--side",
        "64",
        "--json",
    ]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    found = json.loads(capsys.readouterr().out)
    assert found["size"] == (tmp_path / "m.html").stat().st_size
    assert (found["items"], found["pictures"], found["notes"]) == (1, 1, [])
    assert found["space"].startswith("sha256:")


def test_explore_without_lonboard(monkeypatch):
    monkeypatch.setitem(sys.modules, "lonboard", None)
    with pytest.raises(
        CatalogError, match=r"explore needs lonboard.*pip install 'stac-latent\[viz\]'.*write_map"
    ):
        stac_latent.explore([plain("a", psnr=40.0)])


def test_explore_says_what_can_be_shown():
    with pytest.raises(CatalogError, match="measure='speed' is unknown; it is one of psnr, bits_per_pixel"):
        stac_latent.explore([plain("a", psnr=40.0)], measure="speed")
    with pytest.raises(CatalogError, match="no item has a value of 'sam'; these have values: psnr"):
        stac_latent.explore([plain("a", psnr=40.0)], measure="sam")


def test_explore_colours_footprints():
    lonboard = pytest.importorskip("lonboard", reason="lonboard is not installed (extra viz)")
    items = [plain("a", 10, psnr=40.0), plain("b", 12, psnr=50.0), plain("c", 14)]
    made = stac_latent.explore(items)
    assert isinstance(made, lonboard.Map)
    (layer,) = made.layers
    colours = np.array([c.as_py() for chunk in layer.get_fill_color.chunks for c in chunk])
    assert colours[:, :3].tolist() == shade(np.array([40.0, 50.0, np.nan]))[:, :3].tolist()
