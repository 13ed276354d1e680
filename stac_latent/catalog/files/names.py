"""Which scene, band and sensor a file is of, by its name and its folder's."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from stac_latent.catalog.files.sensors import ANY, Sensor, open_sensors
from stac_latent.errors import CatalogError

__all__ = ["Named", "Pattern", "read_name", "stem_of"]

_BAND = r"B(?:0?[1-9]|1[0-2]|8A)|(?:SR|ST)_B\d{1,2}|V[VH]|H[HV]|SCL|QA_PIXEL|Fmask|blue|green|red|rededge\d*|nir\d*|swir\d*|coastal"
"""Names of bands that stand at the end of names of files of no known sensor."""
_FIELDS = re.compile(r"\{(\w*)\}")
_DATES = {"date": r"\d{4}[-_]?\d{2}[-_]?\d{2}|\d{7}|\d{4}", "time": r"\d{2}[-:]?\d{2}[-:]?\d{2}"}


@dataclass(frozen=True, slots=True)
class Named:
    """What a name says."""

    sensor: Sensor
    scene: str
    band: str | None
    """Name of the band; None where the file holds the whole scene, or the name does not say."""
    when: str | None = None
    said: Mapping[str, str] = field(default_factory=dict)
    """``platform``, ``tile``, ``baseline``, where the name has them."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Of the bands, instead of the sensor's."""
    whole: bool = False
    """Whether the scene is a name of its own, whatever the folder: bands of it may lie in several folders."""


class Pattern:
    """A user's own names, such as ``{site}_{date}_{band}.tif``.

    ``{band}``, ``{date}`` and ``{time}`` are what they are called; other fields make up the scene's id together with these two. What has a
    ``/`` is held against as many folders, what has none against the name.

    Raises
    ------
    CatalogError
        If it has no field, a field twice, or none but a band.

    Examples
    --------
    >>> Pattern("{site}_{date}_{band}.tif").match(Path("data/lake_2020-06-01_B04.tif"))
    {'site': 'lake', 'date': '2020-06-01', 'band': 'B04'}
    """

    def __init__(self, text: str) -> None:
        self.text = text
        names = _FIELDS.findall(text)
        if not names or not all(n.isidentifier() for n in names) or "{" in _FIELDS.sub("", text):
            raise CatalogError(
                f"pattern {text!r} has no field in braces; expected such as {{site}}_{{date}}_{{band}}.tif"
            )
        if len(set(names)) < len(names):
            raise CatalogError(f"pattern {text!r} has a field twice; give each a name of its own")
        if set(names) == {"band"}:
            raise CatalogError(
                f"pattern {text!r} has nothing but a band: what else tells scenes apart? Expected such as {{site}}_{{band}}.tif"
            )
        self._depth = text.count("/") + 1
        parts = re.split(r"\{(\w+)\}", text)
        self._regex = re.compile(
            "".join(
                f"(?P<{p}>{_DATES.get(p, '[^/]+?')})" if i % 2 else re.escape(p).replace(r"\*", "[^/]*")
                for i, p in enumerate(parts)
            )
        )

    def match(self, path: Path) -> dict[str, str] | None:
        """Fields of a path; None where it does not fit."""
        found = self._regex.fullmatch("/".join(path.parts[-self._depth :]))
        return None if found is None else found.groupdict()


def stem_of(path: Path) -> str:
    """Name of a file without its ending; a dot within a name is no ending."""
    return re.sub(r"\.(tiff?|jp2|j2k|vrt|img|nc4?|cdf|gri?b2?|hdf|h5)$", "", path.name, flags=re.IGNORECASE)


def read_name(path: Path, sensors: Sequence[Sensor], pattern: Pattern | None = None) -> list[Named]:
    """What a name may say: of one sensor, or of several where it fits the names of more than one.

    Parameters
    ----------
    sensors
        Those that the file may be of.

    Raises
    ------
    CatalogError
        If the name fits the pattern not, or is of another sensor than those.
    """
    if pattern is not None:
        return _patterned(path, sensors, pattern)
    text = f"{path.parent.name}/{stem_of(path)}"
    if strong := _strong(text, sensors):
        return strong
    if others := _strong(text, open_sensors("auto")):
        raise CatalogError(
            f"{path} is named as {others[0].sensor.name} names its files, not as {' or '.join(s.name for s in sensors)}; choose --sensor "
            f"{others[0].sensor.name} (sensor=), or auto"
        )
    if len(sensors) == 1:
        return [_plain(path, sensors[0])]
    hinted = [s for s in sensors if any(h.search(text) for h in s.hints)]
    if not hinted and len(sensors) < len(open_sensors("auto")):
        hinted = list(sensors)
    return [_plain(path, s) for s in hinted or open_sensors(ANY)]


def _strong(text: str, sensors: Sequence[Sensor]) -> list[Named]:
    """By names that a sensor's files have: of several rules of one sensor, the first that fits."""
    out = []
    for sensor in sensors:
        for rule in sensor.names:
            if (found := rule.match.search(text)) is not None:
                said = {k: v for k, v in found.groupdict().items() if v is not None}
                scene, band, when = said.pop("scene"), said.pop("band", None), said.pop("when", None)
                out.append(Named(sensor, scene, sensor.band(band), when, said, rule.fields, whole=True))
                break
    return out


def _plain(path: Path, sensor: Sensor) -> Named:
    """By a band at the end: ``site_2020-06-01_B04``, or ``site/B04``."""
    stem = stem_of(path)
    found = _at_end(sensor).search(stem)
    if found is None:
        return Named(sensor, stem, None)
    band = sensor.band(found["band"]) or found["band"]
    return Named(sensor, stem[: found.start()] or path.parent.name or "scene", band)


def _at_end(sensor: Sensor) -> re.Pattern[str]:
    return _ending(
        ""
        if sensor.name == ANY
        else "|".join(map(re.escape, sorted({*sensor.bands, *sensor.aliases}, key=len, reverse=True)))
    )


@lru_cache(maxsize=32)
def _ending(bands: str) -> re.Pattern[str]:
    return re.compile(rf"(?:^|[_\-. ])(?P<band>{bands or _BAND})(?:_\d+m)?$", re.IGNORECASE if bands else 0)


def _patterned(path: Path, sensors: Sequence[Sensor], pattern: Pattern) -> list[Named]:
    said = pattern.match(path)
    if said is None:
        raise CatalogError(
            f"{path} does not fit the pattern {pattern.text!r}: its fields stand between what the pattern has outside of braces"
        )
    band, when, clock = said.pop("band", None), said.get("date"), said.get("time")
    scene = "_".join(said.values()) or stem_of(path)
    if when is not None and clock is not None:
        when = f"{re.sub('[-_]', '', when)}T{re.sub('[-:]', '', clock)}"
    elif when is not None:
        when = when.replace("_", "-")
    base = Named(sensors[0], scene, band, when, {k: v for k, v in said.items() if k in ("tile", "platform")})
    if len(sensors) > 1:
        text = f"{path.parent.name}/{stem_of(path)}"
        strong = [n.sensor for n in _strong(text, sensors)]
        hinted = strong or [s for s in sensors if any(h.search(text) for h in s.hints)]
        narrow = len(sensors) < len(open_sensors("auto"))
        sensors = hinted or (sensors if narrow else open_sensors(ANY))
    return [replace(base, sensor=s, band=s.band(band) or band, whole=True) for s in sensors]
