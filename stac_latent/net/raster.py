"""Rasters by address, as GDAL opens them, with errors that show no secret."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlsplit

import rasterio
import rasterio.errors

from stac_latent.errors import CatalogError, StacLatentError, without_secrets
from stac_latent.net.fetch import signed
from stac_latent.net.servers import keep_quiet
from stac_latent.system.links import is_http, is_local, local_path, shown

__all__ = ["gdal_name", "open_raster"]


def gdal_name(href: str) -> str:
    """Name by which GDAL opens the raster at an address: paths decoded, addresses of servers signed, GDAL's own as they are."""
    keep_quiet()
    if is_local(href):
        return str(local_path(href))
    if is_http(href):
        return quote(signed(href), safe="!#$%&'()*+,/:;=?@[]~")
    if urlsplit(href).scheme.lower() == "s3" or "/vsis3" in href:
        _tell_gdal_of_s3()
    return href


@contextmanager
def open_raster(href: str, error: type[StacLatentError] = CatalogError, **options: Any) -> Iterator[Any]:
    """Raster at an address, as an opened :class:`rasterio.DatasetReader`.

    Parameters
    ----------
    href
        Path, URL, or a name of GDAL's.
    error
        Raised where it cannot be opened, or where reading it fails.
    **options
        Of :func:`rasterio.open`.

    Raises
    ------
    StacLatentError
        ``error``, without secrets of the address, and without the error of GDAL, which quotes it.
    """
    try:
        with rasterio.open(gdal_name(href), **options) as src:
            yield src
    except UnicodeEncodeError as exc:
        raise error(
            f"{href!r} cannot be read as a raster: halves of characters are in no name of a file"
        ) from exc
    except rasterio.errors.RasterioError as exc:
        text = without_secrets(str(exc))
        cause = "" if exc.__cause__ is None else f" ({without_secrets(str(exc.__cause__))})"
        raise error(f"{shown(href)} cannot be read as a raster: {text}{cause}") from None


def _tell_gdal_of_s3() -> None:
    """GDAL has names of its own for what AWS's other clients, and obstore, are told in the environment."""
    endpoint = urlsplit(os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "")
    if endpoint.netloc and "AWS_S3_ENDPOINT" not in os.environ:
        hosted = os.environ.get("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "").lower() == "true"
        os.environ["AWS_S3_ENDPOINT"] = endpoint.netloc + endpoint.path.rstrip("/")
        os.environ.setdefault("AWS_HTTPS", "NO" if endpoint.scheme == "http" else "YES")
        os.environ.setdefault("AWS_VIRTUAL_HOSTING", "TRUE" if hosted else "FALSE")
    if os.environ.get("AWS_SKIP_SIGNATURE", "").lower() == "true":
        os.environ.setdefault("AWS_NO_SIGN_REQUEST", "YES")
