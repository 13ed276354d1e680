"""An S3 on loopback (moto) that counts requests and the bytes that it sends."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

import boto3
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server


@dataclass
class Request:
    method: str
    path: str
    range: str | None
    status: int = 0
    sent: int = 0


class _Silent(WSGIRequestHandler):
    def log(self, *_args):
        """Keep the tests' output quiet."""


class ObjectServer:
    """``with ObjectServer("bucket") as server``; ``server.environment`` is what a client needs to find it."""

    def __init__(self, bucket):
        self.bucket = bucket
        self.requests: list[Request] = []
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._counted, threaded=True, request_handler=_Silent)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self.environment = {
            "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "not-a-secret-of-anyone", "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.url, "AWS_ALLOW_HTTP": "true",
        }  # fmt: skip

    def __enter__(self):
        self._thread.start()
        self.client = boto3.client(
            "s3", endpoint_url=self.url, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"  # noqa: S106
        )  # fmt: skip
        self.client.create_bucket(Bucket=self.bucket)
        return self

    def __exit__(self, *_):
        self.client.close()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def put(self, folder, prefix=""):
        """Upload a folder."""
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file():
                key = (Path(prefix) / path.relative_to(folder)).as_posix()
                self.client.put_object(Bucket=self.bucket, Key=key, Body=path.read_bytes())
        self.requests.clear()

    def keys(self):
        """Keys in the bucket, in the order of their upload."""
        found = self.client.list_objects_v2(Bucket=self.bucket).get("Contents", [])
        return [f["Key"] for f in found]

    @property
    def sent(self):
        """Bytes of bodies that were sent."""
        return sum(r.sent for r in self.requests)

    def _counted(self, environ, start_response):
        seen = Request(environ["REQUEST_METHOD"], environ["PATH_INFO"], environ.get("HTTP_RANGE"))
        self.requests.append(seen)

        def start(status, headers, *rest):
            seen.status = int(status.split()[0])
            return start_response(status, headers, *rest)

        body = b"".join(self._app(environ, start))
        seen.sent = len(body)
        return [body]
