"""Files of a catalogue on their way to an object store: in which order, under which names, and each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

from stac_latent.catalog.versions import is_same, renamed, stores_of, versioned
from stac_latent.codec.bundle import FILES
from stac_latent.errors import RemoteError, without_secrets
from stac_latent.net.answers import WHOLE
from stac_latent.net.fetch import fetch
from stac_latent.net.object_store import object_store
from stac_latent.system.documents import read_json
from stac_latent.system.files import is_temporary
from stac_latent.system.links import shown

__all__ = ["Upload", "new_names", "waves_of"]

_TYPES = {".json": "application/json", ".parquet": "application/vnd.apache.parquet", ".tif": "image/tiff"}
_LIMIT = 64 << 20
"""Most bytes of a document that are read."""


class Upload:
    """Writes to a folder of an object store.

    Parameters
    ----------
    dest
        Its address, such as ``s3://bucket/catalogue``.
    """

    def __init__(self, dest: str) -> None:
        self.dest = dest.rstrip("/")

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        store, prefix = object_store(self.dest)
        return store, f"{prefix.rstrip('/')}/" if prefix else ""

    def send(self, name: str, path: Path, data: bytes | None = None) -> tuple[str, int]:
        """Write a file, or ``data`` in its place, under a name; the name and the bytes.

        Raises
        ------
        RemoteError
            If the store does not take it.
        """
        self._put(name, path if data is None else data)
        return name, path.stat().st_size if data is None else len(data)

    def replace(self, name: str, data: bytes, tag: str | None) -> bool:
        """Write a document in place of that of a state, or a new one; whether nobody else did meanwhile.

        Raises
        ------
        RemoteError
            If the store does not take it.
        """
        from obstore import exceptions as failed

        mode: Any = "create" if tag is None else {"e_tag": tag}
        try:
            self._put(name, data, mode=mode)
        except RemoteError as exc:
            if isinstance(exc.__context__, failed.PreconditionError | failed.AlreadyExistsError):
                return False
            if not isinstance(exc.__context__, failed.NotSupportedError):
                raise
            self._put(name, data)  # a store without conditions: the last writer wins
        return True

    def there(self, name: str) -> tuple[bytes, str] | None:
        """A document of the store, and its state; None where there is none.

        Raises
        ------
        RemoteError
            If it cannot be read.
        """
        return fetch(f"{self.dest}/{name}", WHOLE, _LIMIT)

    def readable(self, name: str) -> bytes | None:
        """A document of the store; None where there is none, and nothing where it cannot be read."""
        try:
            found = self.there(name)
        except RemoteError:
            return b""
        return None if found is None else found[0]

    def _put(self, name: str, what: Path | bytes, **options: Any) -> None:
        kind = _TYPES.get(Path(name).suffix, "application/octet-stream")
        store, prefix = self._opened
        try:
            store.put(prefix + name, what, attributes={"Content-Type": kind}, **options)
        except Exception as exc:  # noqa: BLE001 - whatever an object store raises
            text = " ".join(without_secrets(str(exc).partition("Debug source")[0]).split())[:300]
            raise RemoteError(
                f"{shown(self.dest)} does not take {name}: {text}; what was written before stays, start the same again"
            ) from None


def new_names(
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


def waves_of(root: Path, left: list[str] | None = None) -> Iterator[list[Path]]:
    """Files of a catalogue in the order of :func:`~stac_latent.catalog.push.object_store.copy`; what is left out goes to ``left``."""
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
