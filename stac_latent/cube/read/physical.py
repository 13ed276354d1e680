"""Values in physical units, so that sensors with other types, scales and offsets meet in one cube."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from stac_latent.cube.read.resample import FieldSource
from stac_latent.errors import CatalogError, SourceWarning
from stac_latent.spec import Band, Spec
from stac_latent.window import Window

__all__ = ["PhysicalSource", "Stored", "check_stored", "physical_band", "to_physical", "with_common_nodata"]


Stored = Mapping[str, Sequence[tuple[str, Band]]]
"""By the name of a band: the id of each Item, and the band as that Item has it."""


def physical_band(band: Band) -> Band:
    """The band as it is after its scale and offset: float32 (complex values: complex64), NaN without data."""
    return replace(
        band, data_type="complex64" if band.is_complex else "float32", nodata=math.nan, scale=1.0, offset=0.0
    )


class PhysicalSource:
    """Decoded pixels times scale plus offset, before anything is resampled.

    Parameters
    ----------
    source
        Reads them in the bands' stored unit.
    """

    def __init__(self, source: FieldSource) -> None:
        self._source = source
        self.spec: Spec = replace(source.spec, bands=tuple(physical_band(b) for b in source.spec.bands))

    def read_field(
        self, window: Window | None = None, bands: Sequence[int] | None = None
    ) -> npt.NDArray[Any]:
        """``(band, y, x)`` float32 or complex64 of a pixel window, in physical units; NaN where the band has no data."""
        field = self._source.read_field(window, bands)
        stored = self._source.spec.bands
        out = np.empty(field.shape, self.spec.bands[0].data_type)
        for at, i in enumerate(range(len(stored)) if bands is None else bands):
            to_physical(field[at], stored[i], out[at])
        return out


def to_physical(stored: npt.NDArray[Any], band: Band, out: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Pixels of a band in its physical unit, NaN where it has no data, into an array of the type of :func:`physical_band`."""
    np.multiply(stored, band.scale, out=out, casting="unsafe")
    out += np.float32(band.offset)
    if band.nodata is not None:
        out[stored == band.nodata] = np.nan
    return out


def check_stored(stored: Stored, *, physical: bool) -> None:
    """See that the values of a band mean the same in all Items.

    Raises
    ------
    CatalogError
        If they are stored with other types, scales or offsets and are asked for as stored, or have other units.
    """
    for name, found in stored.items():
        kinds: dict[str, list[str]] = {}
        for item_id, band in found:
            text = (
                f"unit {band.unit}"
                if physical
                else f"{band.data_type} x {band.scale:.10g} + {band.offset:.10g}"
            )
            if not (physical and band.unit is None):
                kinds.setdefault(text, []).append(item_id)
        if len(kinds) > 1:
            each = "; ".join(
                f"{kind} (items {', '.join(ids[:3])}{', ...' * (len(ids) > 3)})"
                for kind, ids in kinds.items()
            )
            way = (
                "load these items apart"
                if physical
                else "load them with physical=True, in physical units as float32, or apart"
            )
            raise CatalogError(f"band {name!r} is not stored alike in all items: {each}; {way}")


def with_common_nodata(bands: Mapping[str, Band], stored: Stored) -> dict[str, Band]:
    """The bands with a nodata value for all Items: the first that one has.

    Where Items have others, or none, valid pixels may hold it: :class:`SourceWarning` says so.
    """
    out = {}
    for name, band in bands.items():
        kinds: dict[str, tuple[float | None, str]] = {}
        for item_id, own in stored[name]:
            kinds.setdefault(str(own.nodata), (own.nodata, item_id))
        first = next((v for v, _ in kinds.values() if v is not None), None)
        out[name] = replace(band, nodata=first) if len(kinds) > 1 else band
        if len(kinds) > 1 and np.dtype(band.data_type).kind in "iu":
            each = ", ".join(f"{'none' if v is None else f'{v:g}'} (such as {i})" for v, i in kinds.values())
            warnings.warn(
                f"band {name!r} does not have the same nodata in all items: {each}; in this cube pixels without data have {first:g}, as "
                "may valid ones of other items. Load with physical=True (NaN), or give nodata= a value that no pixel has",
                SourceWarning,
                stacklevel=5,
            )
    return out
