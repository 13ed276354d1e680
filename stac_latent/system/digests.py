"""Digests of files, bytes and JSON."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

__all__ = ["canonical_json", "digest", "file_multihash", "multihash"]


def multihash(data: bytes) -> str:
    """SHA-256 multihash in hexadecimal, as ``file:checksum`` wants it."""
    return "1220" + hashlib.sha256(data).hexdigest()


def digest(data: bytes) -> str:
    """``sha256:`` and the digest in hexadecimal, as the fields of the latent extension have it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def file_multihash(path: Path) -> str:
    """As :func:`multihash`, of a file that need not fit in memory."""
    with path.open("rb") as file:
        return "1220" + hashlib.file_digest(file, "sha256").hexdigest()


def canonical_json(obj: Any) -> bytes:
    """UTF-8 JSON with sorted keys and no spaces: equal objects give equal bytes."""
    return json.dumps(
        obj, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()
