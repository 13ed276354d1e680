"""Zarr groups and arrays that others wrote, of any version, by path or address."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from stac_latent.errors import CatalogError, CorruptDataError, StacLatentError, without_secrets
from stac_latent.net.fetch import network
from stac_latent.net.object_store import listed, object_store
from stac_latent.store.zarr.remote_store import RemoteStore
from stac_latent.system.links import is_local, is_object, is_served, local_path, shown

__all__ = ["open_zarr"]


def open_zarr(href: str) -> Any:
    """Zarr group or array, read only.

    Raises
    ------
    CatalogError
        If its address is of no kind that is read.
    CorruptDataError
        If there is no Zarr that can be read.
    RemoteError
        If its server refuses.
    """
    import zarr
    import zarr.errors

    if not is_local(href) and not is_served(href):
        raise CatalogError(
            f"{shown(href)} is not read: expected a path, an http or https address, or one of an object store (s3, gs, az)"
        )
    try:
        store = (
            str(local_path(href))
            if is_local(href)
            else _Bucket(href)
            if is_object(href)
            else RemoteStore(href)
        )
        return zarr.open(store, mode="r")
    except StacLatentError:
        raise
    except (OSError, ValueError, KeyError, TypeError, zarr.errors.BaseZarrError) as exc:
        raise CorruptDataError(
            f"{shown(href)} is no Zarr that can be read: {type(exc).__name__}: {without_secrets(str(exc))}"
        ) from None


class _Bucket(RemoteStore):
    """Objects below an address of an object store, which lists them."""

    supports_listing = True

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Names directly below a prefix."""
        store, root = object_store(self.url(prefix.rstrip("/")) if prefix else self.url(""))
        for name in await asyncio.wrap_future(network().submit(listed, store, root.rstrip("/"))):
            yield name
