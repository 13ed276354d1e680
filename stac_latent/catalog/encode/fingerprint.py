"""What went into a latent, as a digest: an encode that is run again passes over what it finished."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pystac

from stac_latent.cube.raw.source import ItemSource
from stac_latent.cube.ref import chip_of
from stac_latent.errors import CatalogError, CorruptDataError, StacLatentError
from stac_latent.net.fetch import look
from stac_latent.net.raster import open_raster
from stac_latent.store.zarr.chips import asset_size
from stac_latent.system.digests import digest
from stac_latent.system.links import asset_href, is_local, is_served, local_path, shown

__all__ = ["INPUT", "check_checksum", "input_digest", "intact", "made_from"]

INPUT = "latent:input_digest"
"""Field of an asset: the digest."""
_HASHES = {"1220": "sha256", "1114": "sha1", "1340": "sha512", "d50110": "md5"}
"""Hash functions by the first bytes of a multihash: code and length."""


def input_digest(sources: Sequence[ItemSource], options: Mapping[str, Any]) -> str | None:
    """Digest of the source's files, of how they are read, and of ``options``; None where a file cannot be told by name.

    A local file counts by its contents, and so do the files that GDAL reads beside it. A remote one counts by the
    ``file:checksum`` that its asset declares, else by the ETag and size that its server states. What is none of these, and a
    VRT, whose pixels lie elsewhere, has no digest: it is encoded again.

    Parameters
    ----------
    sources
        Pixels of one Item, matched to the codec's bands: of each lattice.
    options
        All else that decides on the bytes: space, target, payload, key frame. Values that JSON holds.

    Raises
    ------
    CatalogError
        If a file cannot be read.
    CorruptDataError
        If a local file is not the one of its ``file:checksum``.
    """
    item, files = sources[0].item, {}
    for key in sorted({b.asset for s in sources for b in s.bands}):
        files[key] = _identity(item.assets[key], item)
        if files[key] is None:
            return None
    about = {
        "files": files,
        "bands": [
            [b.asset, b.index, b.facts.data_type, str(b.facts.missing), b.gain, b.shift]
            for s in sources
            for b in s.bands
        ],
        "decoded": [
            [b.name, b.data_type, str(b.nodata), b.scale, b.offset] for s in sources for b in s.decoded
        ],  # what else is said of a band changes no byte
        "grids": [[str(v) for v in astuple(s.grid)] for s in sources],
        "options": dict(options),
    }
    text = json.dumps(about, sort_keys=True, allow_nan=True)
    return digest(text.encode())


def made_from(known: pystac.Item | None, key: str, digest: str | None) -> bool:
    """Whether a catalogued Item has the asset, made from these inputs."""
    asset = None if known is None else known.assets.get(key)
    return asset is not None and digest is not None and asset.extra_fields.get(INPUT) == digest


def intact(asset: pystac.Asset) -> bool:
    """Whether the store of an asset has as many bytes as were written; where it holds many chips, those of this one."""
    href, fields = asset_href(asset), asset.extra_fields
    if not is_local(href) or not local_path(href).exists():
        return False
    try:
        return bool(fields.get("file:size") == asset_size(local_path(href), chip_of(fields, "latent")))
    except StacLatentError:
        return False


def _identity(asset: pystac.Asset, item: pystac.Item) -> list[str] | None:
    href = asset_href(asset)
    checksum = asset.extra_fields.get("file:checksum")
    if is_local(href):
        check_checksum(local_path(href), checksum)
        return _local_identity(href)
    if checksum:
        return [str(checksum)]
    return _remote_identity(href, item) if is_served(href) else None


def check_checksum(path: Path, expected: Any) -> None:
    """Hold a file against the multihash that its asset states; other kinds of hashes than these are passed over.

    Raises
    ------
    CorruptDataError
        If it has another.
    """
    prefix = next((p for p in _HASHES if str(expected).lower().startswith(p)), None)
    if prefix is None or not path.is_file():
        return
    with path.open("rb") as file:
        checksum = prefix + hashlib.file_digest(file, _HASHES[prefix]).hexdigest()
    if checksum != str(expected).lower():
        raise CorruptDataError(
            f"{path} has checksum {checksum}, its asset states {expected}; the file was changed or cut short: fetch it again, or "
            "correct file:checksum"
        )


def _local_identity(href: str) -> list[str] | None:
    with open_raster(href) as src:
        files, virtual = [Path(f) for f in src.files], src.driver == "VRT"
    if virtual or not files or not all(f.is_file() for f in files):
        return None
    return [_sha256(f) for f in files]


def _remote_identity(href: str, item: pystac.Item) -> list[str] | None:
    try:
        file = look(href)
    except CatalogError as exc:
        raise CatalogError(f"an asset of item {item.id!r} cannot be read: {exc}") from None
    if file is None:
        raise CatalogError(
            f"{shown(href)} of item {item.id!r} does not exist (HTTP 404 or its like); check the address"
        )
    return [file.tag, str(file.size)] if file.tag and not file.tag.startswith("~") else None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
