"""Queries for the tests of search, and their answers by plain Python."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import shapely
from hypothesis import strategies as st
from search_support import SPACES, START, make_items
from shapely.geometry import shape

ITEMS = make_items()
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
        if "min_psnr" in query:  # what is lossless has no PSNR
            lossless = p.get("latent:max_error") == 0
            checks.append(p.get("latent:psnr", nan) >= query["min_psnr"] or lossless)
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
