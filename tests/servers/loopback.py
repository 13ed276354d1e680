"""What the servers of the tests share: a thread that serves on a free port of loopback."""

from __future__ import annotations

import threading
from http.server import ThreadingHTTPServer


class Loopback:
    """``with Loopback(handler) as server: server.url``; the handler finds the server as its attribute ``name``.

    Answers that wait do so for ``release``, which is set at the end.
    """

    def __init__(self, handler, name="api"):
        self.release = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (handler,), {name: self}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
