"""The documents of a group that is filled: short ones, and all of them gathered in that of the group."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore, MemoryStore

__all__ = ["finish"]

_DOCUMENT = "zarr.json"
"""Name of a metadata document."""


def finish(path: Path | MemoryStore) -> None:
    """Gather the metadata of a filled group in one document, so that it opens with one request and without a warning.

    All documents are then written without white space, and without empty members that may be absent: of a small store they are
    most bytes.
    """
    sync(_gather(path if isinstance(path, MemoryStore) else LocalStore(path)))


async def _gather(store: Store) -> None:
    """Zarr would do it, but for the warning, which writers in threads cannot each silence by themselves."""
    keys = [key async for key in store.list() if key.rpartition("/")[2] == _DOCUMENT]
    short = {key.removesuffix(_DOCUMENT).rstrip("/"): await _shortened(store, key) for key in keys}
    members = sorted((name for name in short if name), key=lambda name: (name.count("/"), name))
    await _put(
        store, _DOCUMENT, _with_members(short[""], {name: _with_members(short[name], {}) for name in members})
    )


async def _shortened(store: Store, key: str) -> dict[str, Any]:
    found = await store.get(key, default_buffer_prototype())
    if found is None:
        raise FileNotFoundError(key)
    short = _short(json.loads(found.to_bytes()))
    await _put(store, key, short)
    return short


async def _put(store: Store, key: str, document: dict[str, Any]) -> None:
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
    await store.set(key, default_buffer_prototype().buffer.from_bytes(text.encode()))


def _with_members(node: dict[str, Any], members: dict[str, Any]) -> dict[str, Any]:
    """The document of a group with those of its members; that of an array as it is."""
    if node["node_type"] != "group":
        return node
    gathered = {"kind": "inline", "must_understand": False, "metadata": members}
    rest = {k: v for k, v in node.items() if k not in ("node_type", "consolidated_metadata")}
    return rest | {"consolidated_metadata": gathered, "node_type": "group"}


def _short(node: dict[str, Any]) -> dict[str, Any]:
    """A metadata document without empty attributes and storage transformers."""
    return {k: v for k, v in node.items() if v or k not in ("attributes", "storage_transformers")}
