"""Small files by href: local paths, servers and object stores, with a size limit and checksums."""

from __future__ import annotations

from stac_latent.errors import CatalogError, CorruptDataError, StacLatentError, without_secrets
from stac_latent.net.fetch import Sign, read_remote
from stac_latent.system.digests import multihash
from stac_latent.system.links import is_local, is_served, local_path, shown

__all__ = ["read_bytes"]


def read_bytes(
    href: str, *, checksum: str | None = None, limit: int = 64 << 20, sign: Sign | None = None
) -> bytes:
    """Contents of a small file.

    Parameters
    ----------
    href
        Path or URL.
    checksum
        SHA-256 multihash (hexadecimal) that the contents must have; a byte order mark and line ends that a server or an editor has put
        in are taken out again where they make the difference.
    limit
        Largest size in bytes that is read.
    sign
        Signs the address before it is asked for.

    Raises
    ------
    CatalogError
        If the file cannot be read, or is larger than ``limit``.
    CorruptDataError
        If the checksum differs.
    """
    try:
        if is_local(href):
            with local_path(href).open("rb") as file:
                data = file.read(limit + 1)
        else:
            data = _fetch(href, limit, sign)
    except StacLatentError:
        raise
    except Exception as exc:  # noqa: BLE001 - whatever a file system raises
        raise CatalogError(
            f"cannot read {shown(href)}: {without_secrets(str(exc)) or type(exc).__name__}"
        ) from (exc if is_local(href) else None)
    if len(data) > limit:
        raise CatalogError(f"{shown(href)} is larger than the {limit} bytes that are read of such a file")
    if checksum is not None and multihash(data) != checksum:
        as_written = data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")
        if multihash(as_written) == checksum:
            return as_written
        raise CorruptDataError(
            f"{shown(href)} has checksum {multihash(data)}, the catalogue expects {checksum}; it was changed, or the link is stale"
        )
    return data


def _fetch(href: str, limit: int, sign: Sign | None) -> bytes:
    if is_served(href):
        data = read_remote(href, limit=limit + 1, sign=sign)
        if data is None:
            raise CatalogError(
                f"cannot read {shown(href)}: there is no such file (HTTP 404 or its like); check the address"
            )
        return data
    raise CatalogError(
        f"{shown(href)} is not read: expected a path, an http or https address, or one of an object store (s3, gs, az)"
    )
