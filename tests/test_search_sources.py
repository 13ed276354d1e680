"""The same items give the same answer from each kind of source, and that answer is the right one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pystac
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from search_support import SPACES, START, as_dicts, ids, make_items, write_static
from servers.stac_api import StacApi
from shapely.geometry import shape

from stac_latent import search
from stac_latent.catalog.table import to_geoparquet

ITEMS = make_items()


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    parquet = to_geoparquet(ITEMS, folder / "items.parquet", row_group_size=25)
    feature_file = folder / "items.json"
    pystac.ItemCollection(ITEMS).save_object(str(feature_file))
    with StacApi(as_dicts(ITEMS)) as post, StacApi(as_dicts(ITEMS), post=False) as get:
        yield {
            "static": write_static(ITEMS, folder / "static"),
            "catalog object": pystac.Catalog.from_file(str(folder / "static" / "catalog.json")),
            "parquet": parquet,
            "item collection": feature_file,
            "items": ITEMS,
            "api (POST)": post.url,
            "api (GET)": get.url,
        }


LONGITUDE = st.integers(-180, 180)
LATITUDE = st.integers(-90, 90)
DAYS = st.integers(-20, 400)


@st.composite
def places(draw):
    """A bbox, or a triangle, or nothing."""
    if draw(st.booleans()):
        west, east = sorted((draw(LONGITUDE), draw(LONGITUDE)))
        south, north = sorted((draw(LATITUDE), draw(LATITUDE)))
        return {"bbox": [west, south, east, north]}
    if draw(st.booleans()):
        corners = [(draw(LONGITUDE), draw(LATITUDE)) for _ in range(3)]
        triangle = shapely.Polygon(corners)
        return {"intersects": triangle} if triangle.area > 0 else {}
    return {}


@st.composite
def times(draw):
    """Nothing, an instant, a month, or an interval that may be open."""
    begin = START + timedelta(days=draw(DAYS))
    end = begin + timedelta(days=draw(st.integers(0, 200)))
    choices = [
        None,
        begin,
        "2024-07",
        (begin, end),
        (begin, None),
        (None, end),
        f"{begin.date()}/{end.date()}",
    ]
    value = draw(st.sampled_from(choices))
    return {} if value is None else {"datetime": value}


@st.composite
def latents(draw):
    options = {
        "kind": st.sampled_from(["codec", "embedding"]),
        "space": st.sampled_from(SPACES),
        "max_bits_per_pixel": st.floats(0, 2.2),
        "min_psnr": st.integers(29, 56),
        "max_error": st.integers(0, 50),
        "collections": st.lists(st.sampled_from(["c0", "c1", "c2", "none"]), min_size=1, max_size=2),
        "ids": st.lists(st.sampled_from([i.id for i in ITEMS]), min_size=1, max_size=40),
    }
    chosen = draw(st.sets(st.sampled_from(sorted(options)), max_size=2))
    return {name: draw(options[name]) for name in sorted(chosen)}


NUMBERS = st.sampled_from(["latent:psnr", "latent:bits_per_pixel", "eo:cloud_cover"])
ATOMS = st.one_of(
    st.builds(
        "{} {} {}".format, NUMBERS, st.sampled_from(["<", "<=", ">", ">=", "=", "<>"]), st.integers(0, 60)
    ),
    st.builds("{} BETWEEN {} AND {}".format, NUMBERS, st.integers(0, 40), st.integers(20, 80)),
    st.builds("{} IS {}NULL".format, NUMBERS, st.sampled_from(["", "NOT "])),
    st.builds("{} IN (40, 41, {})".format, NUMBERS, st.integers(30, 55)),
    st.builds(
        "platform {}LIKE '{}'".format,
        st.sampled_from(["", "NOT "]),
        st.sampled_from(["%2a", "sent_nel%", "x"]),
    ),
    st.builds("CASEI(platform) = CASEI('{}')".format, st.sampled_from(["SENTINEL-2A", "s"])),
    st.builds("A_CONTAINS(latent:kinds, ('{}'))".format, st.sampled_from(["codec", "embedding"])),
    st.builds("A_OVERLAPS(latent:spaces, ('{}', 'x'))".format, st.sampled_from(SPACES)),
    st.builds(
        "datetime {} TIMESTAMP('2024-0{}-01T00:00:00Z')".format, st.sampled_from("<>"), st.integers(1, 9)
    ),
    st.builds("T_INTERSECTS(datetime, INTERVAL('2024-0{}-01', '..'))".format, st.integers(1, 9)),
    st.builds("{} + 2 * {} > {}".format, NUMBERS, NUMBERS, st.integers(0, 120)),
)
FILTERS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.builds("({}) AND ({})".format, inner, inner),
        st.builds("({}) OR ({})".format, inner, inner),
        st.builds("NOT ({})".format, inner),
    ),
    max_leaves=4,
)


def expected(query):
    """Answer by plain Python, for all but the free filter."""
    found = set()
    for item in ITEMS:
        p, checks = item.properties, []
        if "bbox" in query:
            w, s, e, n = query["bbox"]
            corners = shapely.MultiPoint([(w, s), (e, n)]).envelope
            checks.append(shape(item.geometry).intersects(corners))
        if "intersects" in query:
            checks.append(shape(item.geometry).intersects(query["intersects"]))
        if "datetime" in query:
            first = item.datetime or datetime.fromisoformat(p["start_datetime"])
            last = item.datetime or datetime.fromisoformat(p["end_datetime"])
            begin, end = _bounds(query["datetime"])
            checks.append((begin is None or last >= begin) and (end is None or first < end))
        checks += [query["kind"] in p.get("latent:kinds", [])] if "kind" in query else []
        checks += [query["space"] in p.get("latent:spaces", [])] if "space" in query else []
        nan = float("nan")
        if "max_bits_per_pixel" in query:
            checks.append(p.get("latent:bits_per_pixel", nan) <= query["max_bits_per_pixel"])
        checks += [p.get("latent:psnr", nan) >= query["min_psnr"]] if "min_psnr" in query else []
        checks += [p.get("latent:max_error", nan) <= query["max_error"]] if "max_error" in query else []
        checks += [item.collection_id in query["collections"]] if "collections" in query else []
        checks += [item.id in query["ids"]] if "ids" in query else []
        if all(checks):
            found.add((item.collection_id, item.id))
    return found


def _bounds(value):
    """Begin, and the first moment after the end."""
    tick = timedelta(microseconds=1)
    if value == "2024-07":
        return datetime(2024, 7, 1, tzinfo=UTC), datetime(2024, 8, 1, tzinfo=UTC)
    if isinstance(value, str):
        begin, end = (datetime.fromisoformat(v).replace(tzinfo=UTC) for v in value.split("/"))
        return begin, end + timedelta(days=1)
    begin, end = value if isinstance(value, tuple) else (value, value)
    return begin, None if end is None else end + tick


@settings(max_examples=120, deadline=None)
@given(place=places(), time=times(), latent=latents())
def test_all_sources_give_the_right_answer(sources, place, time, latent):
    query = {**place, **time, **latent}
    answers = {name: ids(search(source, limit=7, **query)) for name, source in sources.items()}
    assert answers == dict.fromkeys(sources, expected(query))


@settings(max_examples=120, deadline=None)
@given(place=places(), latent=latents(), cql2=FILTERS)
def test_free_filters_agree_with_sql_in_all_sources(sources, place, latent, cql2):
    """The APIs of the tests run the filter as SQL in DuckDB; the other sources run ours."""
    query = {**place, **latent, "filter": cql2}
    answers = {name: ids(search(source, **query)) for name, source in sources.items()}
    assert answers == dict.fromkeys(sources, answers["api (POST)"])
    assert answers["items"] <= expected({**place, **latent})


def test_missing_property_is_unknown(sources):
    has = {(i.collection_id, i.id) for i in ITEMS if "latent:psnr" in i.properties}
    for name, source in sources.items():
        low = ids(search(source, filter="NOT (latent:psnr > 40)"))
        high = ids(search(source, min_psnr=40.5))
        assert low | high == has, name
        assert not low & high, name
        assert ids(search(source, min_psnr=0)) == has, name


def test_items_are_the_same_from_all_sources(sources):
    wanted = {item.id: item for item in ITEMS}
    for name, source in sources.items():
        for item in search(source, kind="codec"):
            original = wanted[item.id]
            assert item.datetime == original.datetime, name
            assert item.properties == original.properties, name
            assert item.bbox == original.bbox, name
            assert shape(item.geometry).equals(shape(original.geometry)), name
            assets = {k: a.to_dict() for k, a in item.assets.items()}
            assert assets == {k: a.to_dict() for k, a in original.assets.items()}, name


@pytest.mark.parametrize("key", ["datetime", "-latent:bits_per_pixel", {"field": "id", "direction": "desc"}])
def test_sorted_alike(sources, key):
    """All items have the property: where some lack it, an API may place them anywhere."""
    query = {"filter": "datetime IS NOT NULL AND latent:bits_per_pixel IS NOT NULL", "sortby": key}
    if isinstance(key, dict):
        names = sorted((n for n in sources if "api" not in n), key=str)
    else:
        names = sorted(sources)
    orders = {name: [i.id for i in search(sources[name], **query)] for name in names}
    field = key["field"] if isinstance(key, dict) else key.lstrip("-")
    wanted = {i.id: i.id if field == "id" else i.properties.get(field) for i in ITEMS}
    for name, order in orders.items():
        values = [wanted[i] for i in order]
        assert len(order) > 5
        assert values == sorted(values, reverse=key != "datetime"), name


def test_several_sources_keep_the_first_of_equal_items(sources, tmp_path):
    changed = [item.clone() for item in ITEMS[:5]]
    for item in changed:
        item.properties["platform"] = "changed"
    path = to_geoparquet(changed, tmp_path / "changed.parquet")
    found = search([path, sources["static"], sources["api (POST)"], pystac.ItemCollection(ITEMS)])
    assert len(found) == len(ITEMS)
    assert sum(i.properties["platform"] == "changed" for i in found) == 5
    assert [i.properties["platform"] for i in search([sources["parquet"], path], ids="item-0001")] == [
        "sentinel-2b"
    ]


def test_antimeridian_bbox(sources):
    """West > east is the way round by 180 degrees."""
    west, east = ids(search(ITEMS, bbox=(150, -90, 180, 90))), ids(search(ITEMS, bbox=(-180, -90, -150, 90)))
    assert west
    assert east
    for name, source in sources.items():
        assert ids(search(source, bbox=(150, -90, -150, 90))) == west | east, name


def test_bbox_with_heights_ignores_them(sources):
    flat = ids(search(ITEMS, bbox=(0, -90, 100, 90)))
    assert flat
    for name, source in sources.items():
        assert ids(search(source, bbox=(0, -90, -500, 100, 90, 500))) == flat, name
