"""Coordinate reference systems as text, and in the fields of the projection extension.

A CRS is a string: an authority's code such as ``EPSG:32633`` or ``ESRI:54009`` where that code means exactly this CRS,
else its WKT2. Both are understood by PROJ, GDAL and all that builds on them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from stac_latent.errors import GridError

__all__ = ["crs_fields", "crs_from_fields", "crs_label", "crs_text"]

_EXACT = 100
"""Confidence that PROJ asks of a code: the datum is the same, not only the ellipsoid."""


def crs_text(crs: Any) -> str:
    """Code of a CRS where one means exactly the same, EPSG's before others, else its WKT2.

    A code is the same only if PROJ holds datum, ellipsoid, projection and units for equal; the order of axes does not
    matter, since rasters have x before y. A CRS whose datum is unknown has no code.

    Parameters
    ----------
    crs
        What pyproj takes (code, WKT, PROJ string, PROJJSON), or what has ``to_wkt`` (rasterio's, odc-geo's).

    Raises
    ------
    GridError
        If it is no CRS.

    Examples
    --------
    >>> crs_text("epsg:32633"), crs_text("ESRI:54009")
    ('EPSG:32633', 'ESRI:54009')
    >>> crs_text("+proj=utm +zone=33 +ellps=intl")[:18]
    'PROJCRS["unknown",'
    """
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    try:
        found = CRS.from_user_input(crs)
        guessed = (
            isinstance(crs, str) and not _says_what(crs) and found.name.casefold() != crs.strip().casefold()
        )
    except (CRSError, TypeError, UnicodeEncodeError) as exc:
        raise GridError(_unknown(crs)) from exc
    if guessed:  # PROJ takes the first of its names that is like a text
        raise GridError(_unknown(crs))
    return _text(found.to_wkt())


def _says_what(text: str) -> bool:
    """Whether a text is a code, a number of EPSG's, WKT, a PROJ string or PROJJSON, and no name."""
    return text.strip().isdecimal() or any(mark in text for mark in ":[+{")


def _unknown(crs: Any) -> str:
    return f"{str(crs)[:200]!r} is not a CRS that PROJ knows; expected a code such as 'EPSG:32633', WKT2 or PROJJSON"


@lru_cache(maxsize=256)
def _text(wkt: str) -> str:
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    found = CRS.from_wkt(wkt)
    for authority in ("EPSG", None):
        code = found.to_authority(authority, min_confidence=_EXACT)
        try:
            if code is not None and CRS.from_authority(*code).equals(found, ignore_axis_order=True):
                return ":".join(code)
        except CRSError:  # a code that this PROJ has no definition of
            continue
    return wkt


def crs_fields(crs: str) -> dict[str, Any]:
    """The ``proj:`` fields of a CRS: its code, or a code of null and ``proj:wkt2`` where it has none.

    Examples
    --------
    >>> crs_fields("EPSG:32633")
    {'proj:code': 'EPSG:32633'}
    """
    return {"proj:code": None, "proj:wkt2": crs} if _is_wkt(crs) else {"proj:code": crs}


def crs_from_fields(*levels: Mapping[str, Any]) -> str | None:
    """CRS of ``proj:code``, ``proj:epsg``, ``proj:wkt2`` or ``proj:projjson``; None where none is said.

    Parameters
    ----------
    levels
        Fields of an asset, of its Item and so on: the first that says a CRS counts, and what the others say does not.

    Raises
    ------
    GridError
        If ``proj:wkt2`` or ``proj:projjson`` is no CRS, or ``proj:code`` no code. Whether PROJ knows a code is not asked.

    Examples
    --------
    >>> crs_from_fields({"proj:code": None}, {"proj:epsg": 32633})
    'EPSG:32633'
    """
    for fields in levels:
        code, epsg = fields.get("proj:code"), fields.get("proj:epsg")
        if code and not str(code).endswith(":None"):  # what some make of a proj:epsg of null
            return _code(str(code))
        if epsg:
            return f"EPSG:{epsg}"
        for name in ("proj:wkt2", "proj:projjson"):
            if fields.get(name):
                return _read(name, fields[name])
    return None


def _code(text: str) -> str:
    """A code as it is; a text that is none could be like a name that PROJ knows."""
    if not _says_what(text) or not text.isprintable():
        raise GridError(
            f"proj:code {text[:200]!r} is not a CRS that PROJ knows; expected such as 'EPSG:32633', or proj:wkt2"
        )
    return text


def _read(name: str, value: Any) -> str:
    text = json.dumps(value) if isinstance(value, Mapping) else value
    try:
        return crs_text(text)
    except GridError as exc:
        raise GridError(f"{name}: {exc}") from exc


def crs_label(crs: Any) -> str:
    """A CRS in a few words, for messages: its code, or the name that its WKT gives.

    Examples
    --------
    >>> crs_label("EPSG:32633")
    'EPSG:32633'
    """
    text = str(crs)
    if not _is_wkt(text):
        return text
    return text.split('"')[1] + " (no authority's code; proj:wkt2)"


def _is_wkt(text: str) -> bool:
    return "[" in text
