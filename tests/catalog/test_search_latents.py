"""Limits of what was measured are met by any one latent of an Item, in every kind of source; unknown fields are named."""

from __future__ import annotations

import json
import warnings
from datetime import UTC, datetime

import pystac
import pytest
from core_support import make_scene, scene_field
from search_support import SPACES, as_dicts, ids, write_static
from servers.stac_api import StacApi

from stac_latent import encode, search
from stac_latent.catalog.search.stac_geoparquet import to_geoparquet
from stac_latent.errors import SearchError

BOX = {"type": "Polygon", "coordinates": [[[10, 45], [11, 45], [11, 46], [10, 46], [10, 45]]]}


def measured(bits, psnr, error, sam, kind="codec", space=SPACES[0]):
    return {
        "latent:kind": kind, "latent:space": space, "latent:bits_per_pixel": bits, "latent:psnr": psnr, "latent:max_error": error,
        "latent:sam": sam,
    }  # fmt: skip


def item(name, best=None, **latents):
    """An Item with these latents; ``best`` are its properties."""
    out = pystac.Item(
        name, BOX, [10, 45, 11, 46], datetime(2024, 6, 1, tzinfo=UTC), {"eo:cloud_cover": 7.0}, collection="c"
    )
    for key, fields in latents.items():
        out.add_asset(key, pystac.Asset(f"https://example.com/{key}", roles=["latent"], extra_fields=fields))
    out.properties["latent:kinds"] = sorted({f["latent:kind"] for f in latents.values()})
    out.properties["latent:spaces"] = sorted({f["latent:space"] for f in latents.values()})
    out.properties |= best or {}
    return out


COARSE, FINE = measured(0.2, 38.0, 90.0, 2.0), measured(2.0, 55.0, 6.0, 0.2, space=SPACES[1])
BEST = {"latent:bits_per_pixel": 0.2, "latent:psnr": 55.0, "latent:max_error": 6.0, "latent:sam": 0.2}
ITEMS = [
    item("both", BEST, **{"my.coarse": COARSE, "fine": FINE}),
    item("fine", {k: FINE[k] for k in BEST}, fine=FINE),
    item("coarse", {k: COARSE[k] for k in BEST}, coarse=COARSE),
]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("latents")
    table = to_geoparquet(ITEMS, folder / "items.parquet")
    with StacApi(as_dicts(ITEMS)) as api, StacApi(as_dicts(ITEMS), filters=False) as plain:
        yield {
            "items": ITEMS, "dictionaries": {"type": "FeatureCollection", "features": as_dicts(ITEMS)},
            "static": write_static(ITEMS, folder / "static"), "table": table, "api": api.url, "api without filters": plain.url,
        }  # fmt: skip


@pytest.mark.filterwarnings("ignore:the STAC API at .* does not conform to the filter extension")
@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({"min_psnr": 50}, {"both", "fine"}),
        ({"max_error": 10}, {"both", "fine"}),
        ({"max_sam": 0.5}, {"both", "fine"}),
        ({"max_bits_per_pixel": 0.5}, {"both", "coarse"}),
        ({"min_psnr": 30}, {"both", "fine", "coarse"}),
        ({"min_psnr": 60}, set()),
        ({"min_psnr": 50, "max_bits_per_pixel": 0.5}, set()),  # one latent keeps both, or none
        ({"min_psnr": 50, "space": SPACES[0]}, set()),
        ({"min_psnr": 50, "space": SPACES[1], "kind": "codec"}, {"both", "fine"}),
        ({"min_psnr": 50, "filter": '"eo:cloud_cover" < 10', "sortby": "-latent:psnr"}, {"both", "fine"}),
        (
            {"filter": '"latent:psnr" >= 50 AND "latent:bits_per_pixel" < 0.5'},
            {"both"},
        ),  # properties are the best
    ],
)
def test_any_latent_keeps_all_limits(sources, query, names):
    for kind, source in sources.items():
        assert {i.id for i in search(source, **query)} == names, kind


def test_properties_of_one_asset_alone(tmp_path):
    """Items whose properties repeat their first latent, as other writers may have them."""
    old = item("old", {k: COARSE[k] for k in BEST}, coarse=COARSE, fine=FINE)
    table = to_geoparquet([old], tmp_path / "items.parquet")
    for source in ([old], table, write_static([old], tmp_path / "static")):
        assert [i.id for i in search(source, min_psnr=50, max_error=10)] == ["old"]
        assert len(search(source, min_psnr=50, max_bits_per_pixel=1)) == 0


def test_items_without_measured_assets_are_taken_by_their_properties(tmp_path):
    bare = item("bare", BEST)
    for source in ([bare], to_geoparquet([bare], tmp_path / "items.parquet")):
        assert [i.id for i in search(source, min_psnr=50)] == ["bare"]
        assert len(search(source, min_psnr=56)) == 0


def test_encode_tells_the_best_of_its_latents(tmp_path):
    scene = make_scene(tmp_path / "raw", scene_field((64, 72))).item
    codec = "lin"
    from stac_latent import open_codec

    made = open_codec(codec, bands=["red", "nir"])
    (first,) = encode(scene, made, tmp_path / "cat", asset="small", step=400)
    (both,) = encode(scene, made, tmp_path / "cat", asset="large", step=4)
    small, large = (both.assets[k].extra_fields for k in ("small", "large"))
    assert small["latent:psnr"] < large["latent:psnr"]
    assert first.properties["latent:psnr"] == small["latent:psnr"]
    assert both.properties["latent:psnr"] == large["latent:psnr"]
    assert both.properties["latent:bits_per_pixel"] == small["latent:bits_per_pixel"]
    assert both.properties["latent:max_error"] == large["latent:max_error"]
    limit = (small["latent:psnr"] + large["latent:psnr"]) / 2
    with StacApi(as_dicts([both])) as api:
        table = to_geoparquet([both], tmp_path / "items.parquet")
        for source in (tmp_path / "cat" / "catalog.json", table, api.url):
            assert len(search(source, min_psnr=limit)) == 1
            assert len(search(source, min_psnr=limit, max_bits_per_pixel=small["latent:bits_per_pixel"])) == 0


def test_command_lists_each_latent(run, tmp_path):
    path = tmp_path / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": as_dicts(ITEMS)}))
    code, out, _ = run("search", path, "--min-psnr", "50", "--max-sam", "1")
    assert code == 0
    assert "both (my.coarse)" in out
    assert "both (fine)" in out
    assert "2 item(s)" in out
    _, out, _ = run("search", path, "--ids", "both", "--json")
    (row,) = json.loads(out)["items"]
    assert [(r["asset"], r["psnr"]) for r in row["latents"]] == [("my.coarse", 38.0), ("fine", 55.0)]


def test_sam_is_a_number():
    with pytest.raises(SearchError, match="max_sam must be a number that is not negative, got 'low'"):
        search(ITEMS, max_sam="low")


@pytest.mark.filterwarnings("ignore:the STAC API at .* does not conform to the filter extension")
@pytest.mark.parametrize(
    ("query", "text"),
    [
        (
            {"filter": "cloud < 20"},
            r"field 'cloud' \(did you mean 'eo:cloud_cover'\?\), which filter or sortby names",
        ),
        ({"filter": '"latent:pnsr" > 20'}, r"field 'latent:pnsr' \(did you mean 'latent:psnr'\?\)"),
        (
            {"sortby": "-properties.eo:cloud_covr"},
            r"field 'eo:cloud_covr' \(did you mean 'eo:cloud_cover'\?\)",
        ),
        ({"sortby": "cloud"}, r"field 'cloud'"),
        ({"filter": 'nothing = 1 AND NOT ("eo:cloud_cover" = 3)'}, r"field 'nothing', which"),
    ],
)
def test_fields_that_no_item_has_are_named(sources, query, text):
    for kind in ("items", "dictionaries", "static", "table", "api without filters"):
        with pytest.warns(UserWarning, match=text):
            list(search(sources[kind], **query))


def test_fields_that_some_item_has_are_not(sources):
    with pytest.warns(UserWarning, match="field 'cloud'"):
        assert len(search(sources["table"], sortby="cloud", max_items=1)) == 1
    one = item("one", {"rare": 1})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(search([*ITEMS, one], filter="rare = 1", sortby="rare")) == 1
        assert len(search(sources["table"], filter="rare IS NULL")) == 3
        assert len(search(sources["items"], sortby="latent:ood_score")) == 3  # of the extension
        assert len(search([], filter="rare = 1")) == 0


def test_queryables_decide_for_an_api():
    known = {"eo:cloud_cover": {"type": "number"}}
    with StacApi(as_dicts(ITEMS), queryables=known) as api:
        with pytest.warns(UserWarning, match=r"field 'cloud' \(did you mean 'eo:cloud_cover'\?\)"):
            assert ids(search(api.url, filter="cloud < 20")) == set()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert len(search(api.url, filter='"eo:cloud_cover" > 90')) == 0
    with StacApi(as_dicts(ITEMS)) as api, warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(search(api.url, filter="cloud < 20")) == 0  # it does not tell what it knows


@pytest.mark.filterwarnings("default")
def test_the_command_warns_in_a_line(run, tmp_path):
    path = tmp_path / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": as_dicts(ITEMS)}))
    code, out, said = run("search", path, "--filter", "cloud < 20")
    assert code == 0
    assert "0 item(s)" in out
    assert "warning no item that was searched has the field 'cloud' (did you mean 'eo:cloud_cover'?)" in said
