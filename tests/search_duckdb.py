"""A search by plain SQL in DuckDB over the stac-geoparquet file: an answer that shares no code with the package."""

from __future__ import annotations

import duckdb
import shapely
from search_strategies import _bounds


class DuckSearch:
    """``DuckSearch(path)(**query)`` gives (collection, id) pairs in order; the arguments are those of ``search``."""

    def __init__(self, path):
        self._db = duckdb.connect()
        self._db.execute("set timezone = 'UTC'")
        self._db.execute("set enable_geoparquet_conversion = false")  # the spatial extension is not at hand
        self._db.execute(f"create table items as select * from read_parquet('{path}')")  # noqa: S608
        self._db.create_function("touches", _touches, ["BLOB", "BLOB"], "BOOLEAN")

    def __call__(self, *, sortby=None, max_items=None, **query):
        where, values = ["true"], []
        for name, column in (("ids", "id"), ("collections", "collection")):
            if name in query:
                where.append(f"{column} in (select unnest(?))")
                values.append(query[name])
        if "bbox" in query or "intersects" in query:
            w, s, e, n = query.get("bbox", (0, 0, 0, 0))
            place = query.get("intersects", shapely.MultiPoint([(w, s), (e, n)]).envelope)
            where.append("touches(geometry, ?)")
            values.append(shapely.to_wkb(place))
        if "datetime" in query:
            begin, end = _bounds(query["datetime"])
            for bound, test in (
                (begin, "coalesce(end_datetime, datetime) >= ?"),
                (end, "coalesce(start_datetime, datetime) < ?"),
            ):
                if bound is not None:
                    where.append(test)
                    values.append(bound)
        for name, test in (
            ("kind", 'list_contains("latent:kinds", ?)'),
            ("space", 'list_contains("latent:spaces", ?)'),
            ("max_bits_per_pixel", '"latent:bits_per_pixel" <= ?'),
            ("min_psnr", '"latent:psnr" >= ?'),
            ("max_error", '"latent:max_error" <= ?'),
        ):
            if name in query:
                where.append(test)
                values.append(query[name])
        order = [_order(key) for key in ([sortby] if isinstance(sortby, str) else sortby or [])]
        sql = f"select collection, id from items where {' and '.join(where)} order by {', '.join([*order, 'id'])}"  # noqa: S608
        return self._db.execute(sql + (f" limit {max_items}" if max_items else ""), values).fetchall()


def _touches(geometry, place):
    return bool(shapely.from_wkb(geometry).intersects(shapely.from_wkb(place)))


def _order(key):
    name = key.lstrip("-")
    column = "coalesce(datetime, start_datetime)" if name == "datetime" else f'"{name}"'
    return f"{column} {'desc' if key.startswith('-') else 'asc'} nulls last"
