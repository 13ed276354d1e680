"""The verb ``copy``: a finished catalogue to an object store, so that it is never there in part."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from stac_latent.access import is_local, local_path, shown
from stac_latent.bundle import FILES
from stac_latent.cube.verify import Progress
from stac_latent.errors import CatalogError, RemoteError
from stac_latent.redact import without_secrets
from stac_latent.store.transport import connections, is_object, object_store

__all__ = ["copy"]

_TYPES = {".json": "application/json", ".parquet": "application/vnd.apache.parquet", ".tif": "image/tiff"}


def copy(
    source: str | os.PathLike[str], dest: str, *, progress: Progress | None = None
) -> list[tuple[str, int]]:
    """Copy a local catalogue to an object store.

    What is linked to comes before what links to it: stores, bundles and rasters first, then Items, Collections, and the root
    catalogue last. Raw assets outside the folder keep their addresses. A reader finds the old catalogue or the new one; a copy that was cut short is started again. Objects that the
    catalogue has no longer are left where they are.

    Parameters
    ----------
    source
        Folder of the catalogue, or its ``catalog.json``.
    dest
        Address of a folder, such as ``s3://bucket/catalogue``; credentials come from the environment (``AWS_ACCESS_KEY_ID``, ...).
    progress
        Called with a label, the files done and their number.

    Returns
    -------
    list of (str, int)
        Path below the catalogue and bytes of each file, in the order of copying.

    Raises
    ------
    CatalogError
        If there is no catalogue, or the destination is no object store.
    RemoteError
        If the destination does not take a file.
    """
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
    store, prefix = object_store(dest)
    prefix = f"{prefix.rstrip('/')}/" if prefix else ""
    done: list[tuple[str, int]] = []
    waves = list(_waves(root))
    total = sum(len(w) for w in waves)

    def send(path: Path) -> tuple[str, int]:
        name = path.relative_to(root).as_posix()
        kind = _TYPES.get(path.suffix, "application/octet-stream")
        try:
            store.put(prefix + name, path, attributes={"Content-Type": kind})
        except Exception as exc:  # noqa: BLE001 - whatever an object store raises
            text = " ".join(without_secrets(str(exc).partition("Debug source")[0]).split())[:300]
            raise RemoteError(
                f"{shown(dest)} does not take {name}: {text}; what was copied before stays, start the same copy again"
            ) from None
        return name, path.stat().st_size

    with ThreadPoolExecutor(connections()) as pool:
        for wave in waves:  # one after the other: a reader follows no link to nothing
            for sent in pool.map(send, wave):
                done.append(sent)
                if progress:
                    progress("copy", len(done), total)
    return done


def _waves(root: Path) -> Iterator[list[Path]]:
    """Files of a catalogue in the order of :func:`copy`; hidden ones are left out."""
    files = [
        p
        for p in sorted(root.rglob("*"))
        if p.is_file() and not any(part.startswith(".") for part in p.relative_to(root).parts)
    ]
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
