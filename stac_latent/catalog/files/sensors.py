"""Sensors as data: bands, how stored numbers become physical ones, and names of files, one JSON object for each.

A sensor is read from the folder ``sensors`` of this package, or from a file of the same form. None has code of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from stac_latent.errors import CatalogError
from stac_latent.system.documents import read_json
from stac_latent.system.suggest import did_you_mean

__all__ = ["ANY", "AUTO", "NameRule", "Sensor", "open_sensors", "sensor_names"]

AUTO = "auto"
ANY = "any"
"""The sensor of files that are of none that is known."""

_FOLDER = Path(__file__).parents[2] / "sensors"
_KEYS = {
    "title": "in a few words",
    "collection": "id of the Collection",
    "properties": "of the Items, such as constellation and instruments",
    "platforms": "by what names of files call them",
    "grid": "what tiles in names are of: MGRS, WRS2 or null",
    "names": "patterns of parent folder and name, without the ending, each with match, and fields of its bands",
    "hints": "patterns that names of such files show, where none of the names fits",
    "aliases": "other names of bands",
    "kinds": "of bands: roles, and fields that hold for files of some data types",
    "bands": "by name: kind, and fields of the band",
    "order": "bands of a file that holds all of them, as the product has them",
}
_GROUPS = frozenset(("scene", "band", "when", "platform", "tile", "baseline"))


@dataclass(frozen=True, slots=True)
class NameRule:
    """How files of a sensor are named."""

    match: re.Pattern[str]
    fields: Mapping[str, Any]
    """Of the bands, instead of the sensor's."""


@dataclass(frozen=True, slots=True)
class Sensor:
    """A sensor, or a product of one; the keys of its JSON object are those of ``_KEYS``."""

    name: str
    title: str
    collection: str
    properties: Mapping[str, Any]
    platforms: Mapping[str, str]
    grid: str | None
    names: Sequence[NameRule]
    hints: Sequence[re.Pattern[str]]
    aliases: Mapping[str, str]
    kinds: Mapping[str, Mapping[str, Any]]
    bands: Mapping[str, Mapping[str, Any]]
    order: Sequence[str]

    @classmethod
    def from_dict(cls, name: str, doc: Any) -> Sensor:
        """Read a sensor.

        Raises
        ------
        CatalogError
            If a key is unknown or missing, or a pattern is none.
        """
        known = "; ".join(f"{k} ({v})" for k, v in _KEYS.items())
        if not isinstance(doc, dict):
            raise CatalogError(
                f"sensor {name!r} is a JSON {type(doc).__name__}; expected an object with {known}"
            )
        if unknown := sorted(set(doc) - set(_KEYS)):
            raise CatalogError(f"sensor {name!r} has unknown keys {', '.join(unknown)}; expected {known}")
        if missing := [k for k in ("title", "bands") if k not in doc]:
            raise CatalogError(f"sensor {name!r} lacks {', '.join(missing)}; expected {known}")
        try:
            rules = [NameRule(re.compile(r["match"]), r.get("fields", {})) for r in doc.get("names", ())]
            hints = [re.compile(h) for h in doc.get("hints", ())]
        except (re.error, TypeError, KeyError) as exc:
            raise CatalogError(f"sensor {name!r} has a pattern that is none: {exc}") from exc
        for rule in rules:
            if "scene" not in rule.match.groupindex or set(rule.match.groupindex) - _GROUPS:
                raise CatalogError(
                    f"sensor {name!r}: pattern {rule.match.pattern!r} names {', '.join(rule.match.groupindex) or 'nothing'}; expected "
                    f"scene, and any of {', '.join(sorted(_GROUPS - {'scene'}))}"
                )
        kinds = doc.get("kinds", {})
        if lost := [
            b for b, f in doc["bands"].items() if f.get("kind") is not None and f["kind"] not in kinds
        ]:
            raise CatalogError(f"sensor {name!r}: the kind of band {lost[0]!r} is none of {', '.join(kinds)}")
        return cls(
            name=name, title=doc["title"], collection=doc.get("collection") or name, properties=doc.get("properties", {}),
            platforms=doc.get("platforms", {}), grid=doc.get("grid"), names=rules, hints=hints, aliases=doc.get("aliases", {}),
            kinds=kinds, bands=doc["bands"], order=doc.get("order", ()),
        )  # fmt: skip

    def band(self, text: str | None) -> str | None:
        """Name of the band that a text calls, by its name, another name, or its common name; None for none."""
        if text is None:
            return None
        by_case = {b.casefold(): b for b in self.bands} | {a.casefold(): b for a, b in self.aliases.items()}
        common = {f.get("eo:common_name"): b for b, f in self.bands.items()}
        return by_case.get(text.casefold()) or common.get(text)

    def facts(self, band: str | None, data_type: str) -> dict[str, Any]:
        """Fields of a band as a file of that type has it; ``kind`` and ``roles`` among them."""
        own = dict(self.bands.get(band or "", {}))
        kind = self.kinds.get(own.get("kind", ""), {})
        holds = data_type in kind.get("types", ())
        physical = ("nodata", "raster:scale", "raster:offset", "unit")
        kept = {k: v for k, v in own.items() if holds or k not in physical}
        return {"roles": kind.get("roles", ["data"]), **(kind.get("fields", {}) if holds else {}), **kept}


def sensor_names() -> dict[str, str]:
    """Names of the known sensors, sorted, with their titles.

    Examples
    --------
    >>> "sentinel-2-l2a" in sensor_names()
    True
    """
    return {name: sensor.title for name, sensor in _known().items()}


@cache
def _known() -> dict[str, Sensor]:
    paths = sorted(_FOLDER.glob("*.json"))
    return {p.stem: Sensor.from_dict(p.stem, json.loads(p.read_text(encoding="utf-8"))) for p in paths}


def open_sensors(sensor: str) -> list[Sensor]:
    """Sensors that a name stands for: one, those that it begins the names of (``hls``), all but ``any`` (``auto``), or that of a JSON file.

    Raises
    ------
    CatalogError
        If there is none of that name, or the file is not well formed.

    Examples
    --------
    >>> [s.name for s in open_sensors("hls")]
    ['hls-l30', 'hls-s30']
    """
    known = _known()
    if sensor == AUTO:
        return [s for name, s in known.items() if name != ANY]
    if sensor in known:
        return [known[sensor]]
    if found := [s for name, s in known.items() if name.startswith(f"{sensor}-")]:
        return found
    if sensor.endswith(".json"):
        return [Sensor.from_dict(Path(sensor).stem, read_json(Path(sensor)))]
    raise CatalogError(
        f"sensor {sensor!r} is not known{did_you_mean(sensor, known, numbered=False)}; expected {AUTO}, {', '.join(known)}, the "
        "beginning of such a name, or a JSON file that describes one"
    )
