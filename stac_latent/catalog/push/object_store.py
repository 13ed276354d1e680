"""The verb ``copy``: a finished catalogue to an object store, so that it is never there in part."""

from __future__ import annotations

import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from stac_latent.aliases import Progress
from stac_latent.catalog.push.upload import Upload, new_names, waves_of
from stac_latent.catalog.versions import with_self
from stac_latent.errors import CatalogError
from stac_latent.net.answers import connections
from stac_latent.system.links import is_local, is_object, local_path, shown

__all__ = ["copy"]


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
    waves = list(waves_of(root, left))
    if left:
        shortly = ", ".join(left[:10]) + (f" and {len(left) - 10} more" if len(left) > 10 else "")
        warnings.warn(
            f"left out of the copy, as hidden or as links that lead nowhere: {shortly}", stacklevel=2
        )
    before = {path: _state(path) for wave in waves[1:] for path in wave}
    upload = Upload(dest)
    done: list[tuple[str, int]] = []

    def send_document(path: Path) -> tuple[str, int]:
        if _state(path) != before[path]:
            raise CatalogError(
                f"{path} changed while it was copied; start the same copy again when nothing writes there"
            )
        name, data = path.relative_to(root).as_posix(), new.get(path)
        if href is not None:
            data = with_self(path.read_bytes() if data is None else data, f"{href.rstrip('/')}/{name}")
        return upload.send(name, path, data)

    pool = ThreadPoolExecutor(connections())
    try:
        names, new = new_names(
            root, waves, lambda item: upload.readable(item.relative_to(root).as_posix()), pool
        )
        first = [(name, path) for path in waves[0] for name in names[path]]
        total = len(first) + sum(len(w) for w in waves[1:])
        jobs = [
            partial(pool.map, lambda job: upload.send(*job), first)
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


def _state(path: Path) -> tuple[int, int, int]:
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
