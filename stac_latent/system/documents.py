"""JSON documents by others: in any Unicode encoding, with or without a byte order mark, nested no deeper than makes sense."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from stac_latent.errors import CatalogError

__all__ = ["DEPTH", "json_text", "parse_json", "read_json", "unicode_text"]

DEPTH = 200
"""Objects and lists within one another that are read; Python ends a program that follows thousands."""
_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)


def parse_json(data: bytes, where: str) -> Any:
    r"""Value of a JSON document.

    Parameters
    ----------
    data
        UTF-8, UTF-16 or UTF-32, with or without a byte order mark.
    where
        What errors call it.

    Raises
    ------
    CatalogError
        If it is no JSON, or nested deeper than :data:`DEPTH`.

    Examples
    --------
    >>> parse_json(b'\xef\xbb\xbf{"id": "a"}', "a.json")
    {'id': 'a'}
    """
    try:
        if _depth(data) > DEPTH:
            raise CatalogError(
                f"{where} is nested deeper than the {DEPTH} levels that are read of a document"
            )
        return json.loads(data)
    except (ValueError, RecursionError) as exc:
        if isinstance(exc, CatalogError):
            raise
        start = data.lstrip()[:60].decode("utf-8", "replace")
        raise CatalogError(f"{where} is not JSON ({exc}); it begins with {start!r}") from None


def read_json(path: Path) -> Any:
    """As :func:`parse_json`, of a file.

    Raises
    ------
    CatalogError
        Also if the file cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise CatalogError(f"cannot read {path}: {exc.strerror or exc}") from None
    return parse_json(data, str(path))


def json_text(value: Any, indent: int = 0, *, allow_nan: bool = False) -> str:
    """JSON to be read by people, in little room: objects and lists that hold neither objects nor lists are one line each.

    Parameters
    ----------
    value
        What JSON holds.
    indent
        Spaces before the lines after the first.
    allow_nan
        Whether numbers may be NaN or infinite, which JSON has no words for.

    Raises
    ------
    ValueError
        If a number may not be what it is.

    Examples
    --------
    >>> print(json_text({"id": "a", "bands": [{"name": "red", "gsd": 10}]}))
    {
      "id": "a",
      "bands": [
        {"name": "red", "gsd": 10}
      ]
    }
    """
    members = (
        list(value.values()) if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    )
    if not any(isinstance(member, dict | list | tuple) for member in members):
        return json.dumps(value, ensure_ascii=False, allow_nan=allow_nan)
    names = (
        [f"{json.dumps(str(k), ensure_ascii=False)}: " for k in value] if isinstance(value, dict) else None
    )
    inside = indent + 2
    lines = [
        " " * inside + name + json_text(member, inside, allow_nan=allow_nan)
        for name, member in zip(names or [""] * len(members), members, strict=True)
    ]
    first, last = "[]" if names is None else "{}"
    return first + "\n" + ",\n".join(lines) + "\n" + " " * indent + last


def unicode_text(text: str) -> bytes:
    r"""JSON text as UTF-8; halves of characters, which UTF-8 does not have, stay the escapes that they were.

    Examples
    --------
    >>> unicode_text('"a\ud800"')
    b'"a\\ud800"'
    """
    return text.encode("utf-8", "backslashreplace")


def _depth(data: bytes) -> int:
    """Levels of nesting; never too few. Texts are looked through only where their brackets could make the difference."""
    found = _levels(data)
    return (
        found
        if found <= DEPTH
        else _levels(_TEXT.sub(b"", data.decode(json.detect_encoding(data)).encode("utf-8", "replace")))
    )


def _levels(data: bytes) -> int:
    marks = np.frombuffer(data, np.uint8)
    step = np.zeros(256, np.int8)
    step[[0x5B, 0x7B]], step[[0x5D, 0x7D]] = 1, -1
    return int(np.cumsum(step[marks], dtype=np.int64).max(initial=0))
