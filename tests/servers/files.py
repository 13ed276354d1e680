"""A file server on loopback that knows ranges, counts what it sends, and fails as it is told."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import unquote, urlparse

from servers.loopback import Loopback

TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
HTML = b"<!DOCTYPE html><html>please log in</html>"


@dataclass
class Request:
    path: str
    query: str
    range: str | None
    status: int = 0
    sent: int = 0


@dataclass
class Fault:
    """What happens to requests whose path matches ``where``: the first ``times`` of them, or all.

    ``kind``: a status (``429``, ``500``, ``403`` ...), ``silent`` (no answer), ``html`` (a page instead of data), ``whole``
    (ranges are ignored), ``cut`` (the connection ends within the body), ``shift`` (another range than was asked for),
    ``drip`` (a byte at a time, never ending), ``away`` (a redirect to ``target``), ``dead`` (the connection is closed).
    """

    kind: str
    where: str = ""
    times: int = 10**9
    retry_after: str | None = None
    target: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def strikes(self, path):
        if re.search(self.where, path) is None:
            return False
        with self.lock:
            self.times -= 1
            return self.times >= 0


class FileServer(Loopback):
    """``with FileServer(folder) as server: server.url``.

    ``token``: requests whose query lacks it get 403. ``latency``: seconds before each answer. ``etags``: whether answers name
    the state of the file. ``headers`` go with each file.
    """

    def __init__(self, root, *, token=None, latency=0.0, etags=True):
        self.root, self.token, self.latency, self.etags = Path(root), token, latency, etags
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.headers: dict[str, str] = {}
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()
        super().__init__(_Handler, "files")
        self.url = self.url.rstrip("/")

    def fail(self, kind, where="", **options):
        self.faults.append(Fault(str(kind), where, **options))

    def reset(self):
        """Forget what was counted, and all faults."""
        self.requests.clear()
        self.faults.clear()
        self.most_at_once = 0

    @property
    def sent(self):
        """Bytes of bodies that were sent."""
        return sum(r.sent for r in self.requests)

    def busy(self, change):
        with self._lock:
            self.at_once += change
            self.most_at_once = max(self.most_at_once, self.at_once)


class _Handler(BaseHTTPRequestHandler):
    files: FileServer
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self):
        self._answer()

    def do_HEAD(self):
        self._answer()

    def _answer(self):
        server, url = self.files, urlparse(self.path)
        seen = Request(unquote(url.path), url.query, self.headers.get("Range"))
        server.requests.append(seen)
        server.busy(+1)
        try:
            if server.latency:
                time.sleep(server.latency)
            self._serve(seen)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            server.busy(-1)

    def _serve(self, seen):
        server = self.files
        fault = next((f for f in server.faults if f.strikes(seen.path)), None)
        kind = "" if fault is None else fault.kind
        if kind == "silent":
            server.release.wait(20)
        if kind in ("silent", "dead"):
            self.close_connection = True
            return
        if kind == "html":
            self._send(seen, 200, HTML, {"Content-Type": "text/html; charset=utf-8"})
            return
        if kind == "away":
            self._send(seen, 302, b"", {"Location": fault.target})
            return
        if kind.isdecimal():
            headers = {"Retry-After": fault.retry_after} if fault.retry_after else {}
            self._send(seen, int(kind), b"no", headers)
            return
        if server.token is not None and server.token not in seen.query:
            self._send(seen, 403, b"<Error>AccessDenied</Error>", {"Content-Type": "application/xml"})
            return
        path = server.root / seen.path.lstrip("/")
        if not path.is_file():
            self._send(seen, 404, b"no such file", {})
            return
        self._file(seen, path, kind)

    def _file(self, seen, path, kind):
        data = path.read_bytes()
        kind_of = TYPES.get(path.suffix, "application/octet-stream")
        headers = {"Accept-Ranges": "bytes", "Content-Type": kind_of, **self.files.headers}
        if self.files.etags:
            headers["ETag"] = f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'
            if self.headers.get("If-None-Match") == headers["ETag"]:
                self._send(seen, 304, b"", {"ETag": headers["ETag"]})
                return
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", seen.range or "")
        if asked is None or kind == "whole":
            self._send(seen, 200, data, headers, kind)
            return
        first, last = asked.groups()
        start = int(first) if first else max(0, len(data) - int(last))
        stop = min(len(data), int(last) + 1 if first and last else len(data))
        if start >= len(data):
            self._send(seen, 416, b"", {"Content-Range": f"bytes */{len(data)}"})
            return
        if kind == "shift":
            start = max(0, start - 1)
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
        self._send(seen, 206, data[start:stop], headers, kind)

    def _send(self, seen, status, data, headers, kind=""):
        seen.status = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 304:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if kind == "drip":
            while not self.files.release.wait(0.02):
                self.wfile.write(data[:1])
                self.wfile.flush()
        if kind == "cut":
            data = data[: len(data) // 2]
            self.close_connection = True
        self.wfile.write(data)
        seen.sent += len(data)

    def log_message(self, *_):
        """Keep the tests' output quiet."""
