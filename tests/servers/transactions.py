"""A small STAC API on loopback that takes items, and that fails as it is told."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler
from urllib.parse import unquote, urlparse

from servers.loopback import Loopback

CORE = "https://api.stacspec.org/v1.0.0/core"
SEARCH = "https://api.stacspec.org/v1.0.0/item-search"
ITEMS = "https://api.stacspec.org/v1.0.0/ogcapi-features/extensions/transaction"
COLLECTIONS = "https://api.stacspec.org/v1.0.0/collections/extensions/transaction"


class TransactionApi(Loopback):
    """``with TransactionApi() as api: api.url``.

    ``faults`` are answered in turn, each once, to the first requests whose method and path it fits:
    ``(method, end of the path, status, headers, body)``; status None cuts the connection, a status "silent" waits.
    ``bulk``: whether there is a bulk endpoint, ``together``: whether a FeatureCollection is taken; ``refuse``: item ids
    that are refused with 400; ``conforms``: its conformance classes; ``find``: what /search answers, instead of items by id.
    """

    def __init__(self, *, faults=(), bulk=False, together=False, refuse=(), conforms=None, find=None):
        self.faults, self.bulk, self.together = list(faults), bulk, together
        self.refuse, self.find = set(refuse), find
        self.conforms = [CORE, SEARCH, ITEMS, COLLECTIONS] if conforms is None else conforms
        self.collections, self.items, self.requests = {}, {}, []
        self.lock = threading.Lock()
        super().__init__(_Handler)

    def sent(self, method="POST", end=None):
        """Paths that were written to."""
        return [
            p
            for m, p, _ in self.requests
            if m == method and p != "/search" and (end is None or p.endswith(end))
        ]

    def landing(self):
        links = [
            {"rel": "self", "href": self.url},
            {"rel": "search", "href": f"{self.url}search", "method": "POST"},
            {"rel": "service-desc", "href": f"{self.url}api"},
        ]
        out = {"type": "Catalog", "id": "api", "stac_version": "1.0.0", "description": "test", "links": links}
        return {**out, "conformsTo": self.conforms}

    def answer(self, method, path, body):  # noqa: PLR0911 -- one return for each kind of request
        parts = [unquote(p) for p in path.strip("/").split("/")]
        if path == "/":
            return 200, self.landing()
        if path == "/api":
            return 200, {"paths": {"/collections/{collection_id}/bulk_items": {}} if self.bulk else {}}
        if path == "/search":
            return 200, self.find(body, self.requests) if self.find else self._search(body)
        if parts == ["collections"] and method == "POST":
            self.collections[body["id"]] = body
            return 201, body
        if len(parts) == 2 and method == "PUT":
            self.collections[parts[1]] = body
            return 200, body
        if len(parts) == 2 and method == "GET":
            found = self.collections.get(parts[1])
            return (404, {"description": "none"}) if found is None else (200, found)
        if method in ("POST", "PUT") and len(parts) in (3, 4):
            return self._write(method, parts, body)
        return 404, {"description": f"no {method} {path}"}

    def _search(self, body):
        found = [self.items[c, i] for c in body["collections"] for i in body["ids"] if (c, i) in self.items]
        return {"type": "FeatureCollection", "features": found, "links": [], "numberMatched": len(found)}

    def _write(self, method, parts, body):
        collection = parts[1]
        if collection not in self.collections:
            return 404, {"description": "no such collection"}
        many = list(body["items"].values()) if parts[2] == "bulk_items" else body.get("features")
        if parts[2] == "bulk_items" and not self.bulk:
            return 405, {"description": "no bulk"}
        if many is not None and parts[2] == "items" and not self.together:
            return 400, {"description": "one item at a time"}
        items = [body] if many is None else many
        if bad := [i["id"] for i in items if i["id"] in self.refuse]:
            return 400, {"description": f"{bad[0]} is not wanted"}
        if method == "POST" and many is None and (collection, body["id"]) in self.items:
            return 409, {"description": "exists"}
        for item in items:
            self.items[collection, item["id"]] = {**item, "collection": collection}
        return 200, {}


class _Handler(BaseHTTPRequestHandler):
    api = None
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self):
        self._answer("GET", None)

    def do_POST(self):
        self._answer("POST", json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def do_PUT(self):
        self._answer("PUT", json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _answer(self, method, body):
        path = urlparse(self.path).path
        with self.api.lock:
            self.api.requests.append((method, path, time.monotonic()))
            fault = next((f for f in self.api.faults if f[0] == method and path.endswith(f[1])), None)
            if fault is not None:
                self.api.faults.remove(fault)
                _, _, status, headers, content = fault
            else:
                (status, content), headers = self.api.answer(method, path, body), {}
        if status is None:
            self.close_connection = True
            self.connection.close()
            return
        if status == "silent":
            self.api.release.wait(30)
            self.close_connection = True
            return
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    def log_message(self, *_):
        """Keep the tests' output quiet."""
