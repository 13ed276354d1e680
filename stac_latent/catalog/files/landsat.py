"""Metadata of Landsat scenes: what stands in ``*_MTL.txt`` or ``*_MTL.json`` beside the bands."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stac_latent.errors import CatalogError
from stac_latent.system.documents import read_json

__all__ = ["read_mtl"]

_LINE = re.compile(r'^\s*([A-Z0-9_]+)\s*=\s*"?(.*?)"?\s*$', re.MULTILINE)
_LARGEST = 8 << 20


def read_mtl(folder: Path, scene: str) -> tuple[str | None, dict[str, Any]]:
    """Time and properties of a scene; None and nothing where the folder has no metadata of it.

    Raises
    ------
    CatalogError
        If the file is there and cannot be read.
    """
    for path in (folder / f"{scene}_MTL.json", folder / f"{scene}_MTL.txt"):
        if path.is_file():
            said = _said(path)
            break
    else:
        return None, {}
    day, clock = said.get("DATE_ACQUIRED"), said.get("SCENE_CENTER_TIME")
    when = None if day is None else day if clock is None else f"{day}T{clock}"
    numbers = {
        "eo:cloud_cover": _number(said, "CLOUD_COVER", path),
        "view:sun_azimuth": _number(said, "SUN_AZIMUTH", path),
        "view:sun_elevation": _number(said, "SUN_ELEVATION", path),
    }
    if (numbers["eo:cloud_cover"] or 0) < 0:  # -1: not computed
        numbers["eo:cloud_cover"] = None
    return when, {k: v % 360 if k == "view:sun_azimuth" else v for k, v in numbers.items() if v is not None}


def _said(path: Path) -> Mapping[str, str]:
    """Fields of all groups: the first of each name, which is that of the product itself."""
    if path.suffix == ".json":
        pairs = list(_leaves(read_json(path)))
    else:
        try:
            text = path.read_bytes()[:_LARGEST].decode("utf-8", errors="replace")
        except OSError as exc:
            raise CatalogError(f"{path} cannot be read: {exc.strerror}") from exc
        pairs = _LINE.findall(text)
    return dict(reversed(pairs))


def _leaves(doc: Any) -> Iterator[tuple[str, str]]:
    if isinstance(doc, dict):
        for key, value in doc.items():
            yield from (
                _leaves(value)
                if isinstance(value, dict)
                else [(key, value if isinstance(value, str) else json.dumps(value))]
            )


def _number(said: Mapping[str, str], name: str, path: Path) -> float | None:
    try:
        return float(said[name]) if name in said else None
    except ValueError as exc:
        raise CatalogError(f"{path}: {name} is {said[name]!r}, which is no number") from exc
