"""The verb ``copy``: a finished catalogue to an object store, so that it is never there in part."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from stac_latent.aliases import Progress
from stac_latent.catalog.versions import is_same, renamed, stores_of, versioned, with_self
from stac_latent.codec.bundle import FILES
from stac_latent.errors import CatalogError, RemoteError, without_secrets
from stac_latent.net.answers import WHOLE, connections
from stac_latent.net.fetch import fetch
from stac_latent.net.object_store import object_store
from stac_latent.system.documents import read_json
from stac_latent.system.files import is_temporary
from stac_latent.system.links import is_local, is_object, local_path, shown

__all__ = ["copy"]

_TYPES = {".json": "application/json", ".parquet": "application/vnd.apache.parquet", ".tif": "image/tiff"}
_LIMIT = 64 << 20
"""Most bytes of an Item that are read."""


def copy(
    source: str | os.PathLike[str], dest: str, *, href: str | None = None, progress: Progress | None = None
) -> list[tuple[str, int]]:
    """Copy a local catalogue to an object store.

    What is linked to comes before what links to it: stores, bundles and rasters first, then Items, Collections, and the root
    catalogue last. Where an Item of that name is at the destination and says otherwise, its stores are sent under new names, which hold
    a digest of their contents: a reader finds the old Item with the old pixels, or the new one with the new. A copy that was cut
    short is started again. Objects that the catalogue has no longer are left where they are.

    Links to folders and files are followed. Raw assets outside the folder keep their addresses. Hidden names that are no Items, and
    links that lead nowhere, are left out with a warning that names them.

    Parameters
    ----------
    source
        Folder of the catalogue, or its ``catalog.json``.
    dest
        Address of a folder, such as ``s3://bucket/catalogue``; credentials come from the environment (``AWS_ACCESS_KEY_ID``, ...).
    href
        Address at which the destination is published, such as ``https://data.example.org/catalogue``: each document then has a ``self`` link. Without it documents
        have none, and the catalogue can be moved.
    progress
        Called with a label, the files done and their number.

    Returns
    -------
    list of (str, int)
        Path below the destination and bytes of each file, in the order of copying.

    Raises
    ------
    CatalogError
        If there is no catalogue, it changes while it is copied, the destination is no object store, or ``href`` no address.
    RemoteError
        If the destination does not take a file.
    """
    root = _root_of(source, dest, href)
    left: list[str] = []
    waves = list(_waves(root, left))
    if left:
        shortly = ", ".join(left[:10]) + (f" and {len(left) - 10} more" if len(left) > 10 else "")
        warnings.warn(
            f"left out of the copy, as hidden or as links that lead nowhere: {shortly}", stacklevel=2
        )
    before = {path: _state(path) for wave in waves[1:] for path in wave}
    store, prefix = object_store(dest)
    prefix = f"{prefix.rstrip('/')}/" if prefix else ""
    done: list[tuple[str, int]] = []

    def send(name: str, path: Path, data: bytes | None = None) -> tuple[str, int]:
        kind = _TYPES.get(path.suffix, "application/octet-stream")
        try:
            store.put(prefix + name, path if data is None else data, attributes={"Content-Type": kind})
        except Exception as exc:  # noqa: BLE001 - whatever an object store raises
            text = " ".join(without_secrets(str(exc).partition("Debug source")[0]).split())[:300]
            raise RemoteError(
                f"{shown(dest)} does not take {name}: {text}; what was copied before stays, start the same copy again"
            ) from None
        return name, path.stat().st_size if data is None else len(data)

    def send_document(path: Path) -> tuple[str, int]:
        if _state(path) != before[path]:
            raise CatalogError(
                f"{path} changed while it was copied; start the same copy again when nothing writes there"
            )
        name, data = path.relative_to(root).as_posix(), new.get(path)
        if href is not None:
            data = with_self(path.read_bytes() if data is None else data, f"{href.rstrip('/')}/{name}")
        return send(name, path, data)

    pool = ThreadPoolExecutor(connections())
    try:
        names, new = _new_names(
            root, waves, lambda item: _there(dest, item.relative_to(root).as_posix()), pool
        )
        first = [(name, path) for path in waves[0] for name in names[path]]
        total = len(first) + sum(len(w) for w in waves[1:])
        jobs = [
            partial(pool.map, lambda job: send(*job), first)
        ]  # one after the other: a reader follows no link to nothing
        jobs += [partial(pool.map, send_document, wave) for wave in waves[1:]]
        for job in jobs:
            for sent in job():
                done.append(sent)
                if progress:
                    progress("copy", len(done), total)
    finally:
        pool.shutdown(cancel_futures=True)
    return done


def _root_of(source: str | os.PathLike[str], dest: str, href: str | None) -> Path:
    """Folder of the catalogue; refuses what cannot be copied."""
    root = local_path(os.fspath(source)) if is_local(os.fspath(source)) else None
    root = root.parent if root is not None and root.name == "catalog.json" else root
    if root is None or not (root / "catalog.json").is_file():
        raise CatalogError(
            f"{shown(os.fspath(source))} is no local catalogue: give the folder of a catalog.json"
        )
    if not is_object(dest):
        raise CatalogError(
            f"{shown(dest)} is no address of an object store; expected such as s3://bucket/folder, gs:// or az://"
        )
    if href is not None and is_local(href):
        raise CatalogError(
            f"href is {href!r}; expected the address at which the copy is published, such as https://data.example.org/catalogue"
        )
    return root.resolve()


def _new_names(
    root: Path, waves: list[list[Path]], there: Callable[[Path], bytes | None], pool: ThreadPoolExecutor
) -> tuple[dict[Path, list[str]], dict[Path, bytes]]:
    """Names below the destination of the files of the first wave, and Items that are written otherwise than they are.

    What an Item links to keeps its name where no other Item of that name is at the destination.
    """
    items = {
        path: doc
        for path in waves[2]
        if isinstance(doc := read_json(path), dict) and doc.get("type") == "Feature"
    }
    found = dict(zip(items, pool.map(there, items), strict=True))
    stores = {path: stores_of(doc, path, root) for path, doc in items.items()}
    changed = [
        path
        for path in items
        if found[path] is not None and stores[path] and not is_same(items[path], found[path])
    ]
    kept = {store for path in items if path not in changed for store in stores[path]}
    files: dict[Path, list[Path]] = {store: [] for path in changed for store in stores[path]}
    names: dict[Path, list[str]] = {}
    for path in waves[0]:
        store = next((p for p in (path, *path.parents) if p in files), None)
        names[path] = [] if store is not None and store not in kept else [path.relative_to(root).as_posix()]
        if store is not None:
            files[store].append(path)
    versions = dict(zip(files, pool.map(lambda s: versioned(s, files[s]), files), strict=True))
    for store, own in files.items():
        for path in own:
            name = store.with_name(versions[store]) / path.relative_to(store)
            names[path].append(name.relative_to(root).as_posix())
    return names, {path: renamed(path, root, versions) for path in changed}


def _there(dest: str, name: str) -> bytes | None:
    """A document at the destination; None where there is none, and nothing where it cannot be read."""
    try:
        found = fetch(f"{dest.rstrip('/')}/{name}", WHOLE, _LIMIT)
    except RemoteError:
        return b""
    return None if found is None else found[0]


def _state(path: Path) -> tuple[int, int, int]:
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _waves(root: Path, left: list[str] | None = None) -> Iterator[list[Path]]:
    """Files of a catalogue in the order of :func:`copy`; what is left out goes to ``left``."""
    files = sorted(_files(root, root, frozenset(), [] if left is None else left))
    documents = {
        p
        for p in files
        if p.suffix == ".json" and p.name not in FILES and not any(".zarr" in part for part in p.parts)
    }
    codecs = {p for p in documents if p.relative_to(root).parts[0] == "codecs"}
    top = {p for p in documents - codecs if p.name in ("catalog.json", "collection.json")}
    yield [p for p in files if p not in documents]
    yield sorted(codecs)
    yield sorted(documents - codecs - top)
    depths = sorted({len(p.parts) for p in top}, reverse=True)
    for depth in depths:
        yield sorted(p for p in top if len(p.parts) == depth)


def _files(folder: Path, root: Path, above: frozenset[Path], left: list[str]) -> Iterator[Path]:
    """Files below a folder, where links lead as well. Of hidden names those of Items, and those in stores."""
    above |= {folder.resolve()}
    for path in folder.iterdir():
        if is_temporary(path):
            continue
        documents = (f"{path.name}.json", "collection.json", "catalog.json")
        is_data = any((path / name).is_file() for name in documents) or path.name == f"{folder.name}.json"
        in_store = ".zarr" in str(path.relative_to(root))
        hidden = path.name.startswith(".") and not is_data and not in_store
        if hidden or not path.exists() or path.resolve() in above:
            left.append(path.relative_to(root).as_posix())
        elif path.is_dir():
            yield from _files(path, root, above, left)
        else:
            yield path
