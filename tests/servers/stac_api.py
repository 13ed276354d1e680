"""A small STAC API on loopback, for tests. Its filter runs as SQL in DuckDB, so it checks ours independently."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlencode, urlparse

import cql2
import duckdb
import shapely
from shapely.geometry import shape

from servers.loopback import Loopback

CORE = "https://api.stacspec.org/v1.0.0/core"
SEARCH = "https://api.stacspec.org/v1.0.0/item-search"


def _time(text, fallback):
    if text in ("", ".."):
        return fallback
    return datetime.fromisoformat(text)


def _largest_null(item, name):
    """What PostgreSQL sorts by: nulls are larger than anything, and so come first where the order descends."""
    properties = item["properties"]
    value = item["id"] if name == "id" else properties.get(name)
    if name == "datetime" and value is None:
        value = properties["start_datetime"]
    return (value is None, 0 if value is None else value)


class Store:
    """Items, and which of them a search request wants."""

    def __init__(self, items):
        self.items = items
        self._lock = threading.Lock()
        self._db = duckdb.connect()
        self._db.execute("set timezone = 'UTC'")
        columns = {"id": "VARCHAR", "collection": "VARCHAR"}
        for item in items:
            for name, value in item["properties"].items():
                if name.endswith("datetime"):
                    columns[name] = "TIMESTAMPTZ"
                elif isinstance(value, list):
                    columns[name] = "VARCHAR[]"
                elif isinstance(value, (int, float)):
                    columns[name] = "DOUBLE"
                elif isinstance(value, str):
                    columns[name] = "VARCHAR"
        for name in ("latent:psnr", "latent:bits_per_pixel", "latent:max_error", "eo:cloud_cover", "cloud"):
            columns.setdefault(name, "DOUBLE")
        for name in ("latent:kinds", "latent:spaces"):
            columns.setdefault(name, "VARCHAR[]")
        columns.setdefault("platform", "VARCHAR")
        spec = ", ".join(f'"{name}" {kind}' for name, kind in columns.items())
        self._db.execute(f"create table items (position INTEGER, {spec})")
        marks = ", ".join("?" * (len(columns) + 1))
        for position, item in enumerate(items):
            row = {**item["properties"], "id": item["id"], "collection": item.get("collection")}
            self._db.execute(
                f"insert into items values ({marks})",  # noqa: S608
                [position, *(row.get(c) for c in columns)],
            )

    def search(self, request):
        kept = [i for i, item in enumerate(self.items) if self._plain(item, request)]
        if "filter" in request:
            sql = cql2.Expr(request["filter"]).to_sql().replace(" @@ ", " && ")
            with self._lock:
                rows = self._db.execute(f"select position from items where {sql}").fetchall()  # noqa: S608
            kept = [i for i in kept if (i,) in set(rows)]
        found = [self.items[i] for i in kept]
        for key in reversed(request.get("sortby", [])):
            found.sort(
                key=lambda item, key=key: _largest_null(item, key["field"]),
                reverse=key["direction"] == "desc",
            )
        return found

    @staticmethod
    def _plain(item, request):
        if "ids" in request and item["id"] not in request["ids"]:
            return False
        if "collections" in request and item.get("collection") not in request["collections"]:
            return False
        place = shapely.box(*request["bbox"]) if "bbox" in request else None
        place = shape(request["intersects"]) if "intersects" in request else place
        if place is not None and (item["geometry"] is None or not shape(item["geometry"]).intersects(place)):
            return False
        if "datetime" in request:
            first, last = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
            begin, _, end = request["datetime"].partition("/")
            begin, end = _time(begin, first), _time(end or begin, last)
            p = item["properties"]
            lo = datetime.fromisoformat(p.get("start_datetime") or p["datetime"])
            hi = datetime.fromisoformat(p.get("end_datetime") or p["datetime"])
            return begin <= hi and lo <= end
        return True


class StacApi(Loopback):
    """``with StacApi(items) as api: api.url``; the keyword arguments make it limited or faulty.

    ``filters``, ``sorts``: whether it conforms to those extensions; ``post``: whether it searches by POST;
    ``fault``: ``html`` (search answers a web page), ``silent`` (never answers), ``reject`` (refuses filters),
    ``busy`` (503), ``loop`` (a page's next link is the page itself), ``stuck`` (new next links, the same page),
    ``text`` (announces CQL2 text only), ``no-search``, ``no-collection`` (search answers another JSON),
    ``conformance`` (conformance classes at /conformance only). ``queryables``: the properties that it names as such.
    """

    def __init__(self, items, *, filters=True, sorts=True, post=True, fault="", files=None, queryables=None):
        self.store = Store(items)
        self.filters, self.sorts, self.post, self.fault = filters, sorts, post, fault
        self.files, self.queryables = dict(files or {}), queryables
        self.requests = []
        super().__init__(_Handler)

    def conformance(self):
        text = self.fault == "text"
        out = [CORE, SEARCH]
        if self.filters:
            language = "cql2-text" if text else "cql2-json"
            out += [f"{SEARCH}#filter", f"http://www.opengis.net/spec/cql2/1.0/conf/{language}"]
        return [*out, f"{SEARCH}#sort"] if self.sorts else out

    def landing(self):
        links = [
            {"rel": "self", "href": self.url},
            {"rel": "conformance", "href": f"{self.url}conformance"},
            {"rel": "data", "href": f"{self.url}collections"},
        ]
        if self.fault != "no-search":
            links.append({"rel": "search", "href": f"{self.url}search", "method": "GET"})
            if self.post:
                links.append({"rel": "search", "href": f"{self.url}search", "method": "POST"})
        if self.queryables is not None:
            links.append(
                {"rel": "http://www.opengis.net/def/rel/ogc/1.0/queryables", "href": f"{self.url}queryables"}
            )
        out = {"type": "Catalog", "id": "api", "stac_version": "1.0.0", "description": "test", "links": links}
        if self.fault != "conformance":
            out["conformsTo"] = self.conformance()
        return out

    def page(self, method, request, path):
        """One page of a search, with the next link of its method."""
        if "filter" in request and (not self.filters or self.fault == "reject"):
            return 400, {"code": "InvalidQuery", "description": "a_contains is not supported"}
        offset = int(request.get("token", 0))
        limit = int(request.get("limit", 10))
        query = {k: v for k, v in request.items() if k not in ("token", "limit")}
        found = self.store.search(query)
        start = 0 if self.fault in ("loop", "stuck") else offset
        page = found[start : start + limit]
        links = []
        if start + limit < len(found):
            token = offset + limit
            if self.fault == "loop" and method == "POST":
                link = {"rel": "next", "method": "POST", "href": f"{self.url}search", "body": request}
            elif self.fault == "loop":
                link = {"rel": "next", "href": path}
            elif method == "POST":
                link = {
                    "rel": "next",
                    "method": "POST",
                    "href": f"{self.url}search",
                    "merge": True,
                    "body": {"token": token},
                }
            else:
                flat = {**request, "token": token, "limit": limit}
                link = {"rel": "next", "href": f"{self.url}search?{urlencode(_flat(flat))}"}
            links.append(link)
        return 200, {"type": "FeatureCollection", "features": page, "links": links}


def _flat(request):
    """Parameters of a POST body as a GET request writes them."""
    out = {}
    for name, value in request.items():
        if name == "sortby":
            out[name] = ",".join(("-" if k["direction"] == "desc" else "+") + k["field"] for k in value)
        elif name in ("filter", "intersects") and isinstance(value, dict):
            out[name] = json.dumps(value)
        else:
            out[name] = ",".join(map(str, value)) if isinstance(value, list) else value
    return out


def _nested(query):
    """Inverse of :func:`_flat` for a query string."""
    out = {name: values[0] for name, values in parse_qs(query).items()}
    for name in ("ids", "collections"):
        if name in out:
            out[name] = out[name].split(",")
    if "bbox" in out:
        out["bbox"] = [float(v) for v in out["bbox"].split(",")]
    if "intersects" in out:
        out["intersects"] = json.loads(out["intersects"])
    if out.get("filter-lang") == "cql2-json":
        out["filter"] = json.loads(out["filter"])
    if "sortby" in out:
        keys = out["sortby"].split(",")
        out["sortby"] = [
            {"field": k.lstrip("+- "), "direction": "desc" if k[0] == "-" else "asc"} for k in keys
        ]
    return out


class _Handler(BaseHTTPRequestHandler):
    api = None
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self):
        self._answer("GET", None)

    def do_POST(self):
        self._answer("POST", json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _answer(self, method, body):
        api, url = self.api, urlparse(self.path)
        request = _nested(url.query) if body is None else body
        api.requests.append((method, url.path, request, dict(self.headers)))
        if url.path.lstrip("/") in api.files:
            self._send(200, api.files[url.path.lstrip("/")], "application/octet-stream")
        elif url.path == "/":
            self._send(200, api.landing())
        elif url.path == "/queryables" and api.queryables is not None:
            self._send(200, {"type": "object", "properties": api.queryables})
        elif url.path == "/conformance":
            self._send(200, {"conformsTo": api.conformance()})
        elif url.path != "/search":
            self._send(404, {"code": "NotFound", "description": f"no {url.path}"})
        elif api.fault == "silent":
            api.release.wait(30)
            self.close_connection = True
        elif api.fault == "html":
            self._send(200, b"<!DOCTYPE html><html>maintenance</html>", "text/html")
        elif api.fault == "busy":
            self._send(503, {"description": "busy"})
        elif api.fault == "no-collection":
            self._send(200, {"type": "Catalog"})
        else:
            self._send(*api.page(method, request, self.path))

    def _send(self, status, content, media_type="application/geo+json"):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        """Keep the tests' output quiet."""
