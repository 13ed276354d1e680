"""Windows of Zarr arrays that others wrote, with what their attributes say: nodata, scale and offset, axes, times."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
import zarr.errors

from stac_latent.aliases import Array
from stac_latent.errors import CatalogError, CorruptDataError, StacLatentError
from stac_latent.store.foreign.axes import ArrayHeader, check_axes, in_order, sizes_of
from stac_latent.store.foreign.zarr_group import open_zarr
from stac_latent.system.links import absolute, shown
from stac_latent.window import Window

__all__ = ["ZarrArray", "array_attributes", "attributes_of", "dimension_names", "read_coordinate"]

_UNREADABLE = (OSError, ValueError, TypeError, RuntimeError, zarr.errors.BaseZarrError)


class ZarrArray:
    """An array of a store; of one with a time axis, one step."""

    def __init__(self, href: str, axes: tuple[str, ...], array: str, step: int) -> None:
        self.href, self.axes, self.step = href, axes, step
        found = _array(href, array)
        if found.dtype.kind not in "iuf":
            raise CorruptDataError(f"{href}/{array} is no array of numbers; name one with latent:array")
        check_axes(f"{href}/{array}", found.shape, axes)
        self.array = found
        self.dtype = np.dtype(found.dtype).newbyteorder("=")
        self.shape = sizes_of(found.shape, axes)
        self.tile = sizes_of(found.chunks, axes)[1:]
        self.steps = dict(zip(axes, found.shape, strict=True)).get("time", 1)
        if not 0 <= step < self.steps:
            raise CorruptDataError(
                f"{href}/{array} has {self.steps} steps of time; number {step} is not there"
            )
        self.header = _header(found, f"{href}/{array}")

    def read(self, window: Window) -> Array:
        """As :class:`~stac_latent.store.foreign.arrays.ForeignArray`."""
        spans: dict[str, Any] = {
            "y": slice(*window.y),
            "x": slice(*window.x),
            "channel": slice(None),
            "time": self.step,
        }
        try:
            part = np.asarray(self.array[tuple(spans[name] for name in self.axes)])
        except StacLatentError:
            raise
        except _UNREADABLE as exc:
            raise CorruptDataError(
                f"{shown(self.href)}: window {window} does not decode: {exc}; fetch it again"
            ) from exc
        return in_order(part.astype(self.dtype, copy=False), tuple(a for a in self.axes if a != "time"))

    def read_valid(self, window: Window) -> None:
        """There are no masks beside such arrays."""


def _array(href: str, array: str) -> zarr.Array[Any]:
    node = open_zarr(href)
    try:
        found = node[array] if array else node
    except KeyError as exc:
        raise CatalogError(f"{shown(href)} has no array {array!r}; it has {_members(node)}") from exc
    except StacLatentError:
        raise
    except _UNREADABLE as exc:
        raise CorruptDataError(
            f"{shown(href)} is no Zarr that can be read: {type(exc).__name__}: {exc}"
        ) from exc
    if not isinstance(found, zarr.Array):
        raise CorruptDataError(f"{href}/{array} is no array of numbers; name one with latent:array")
    return found


def _members(group: Any) -> str:
    """Names of a group's members, where its store can be listed."""
    try:
        return ", ".join(sorted(group.keys())) or "none"
    except StacLatentError:
        return "what its server does not list"


def _header(array: zarr.Array[Any], where: str) -> ArrayHeader:
    """CF attributes, and the fill value of a Zarr v2 array unless it is the default."""
    said = dict(array.attrs)
    names = [n for n in ("_FillValue", "missing_value") if said.get(n) is not None]
    found = {n: _stored_number(said[n], f"{n} of {where}") for n in names}
    if not found and array.metadata.zarr_format == 2 and array.fill_value:
        found = {"fill_value": float(array.fill_value)}
    numbers = {v for v in found.values() if not math.isnan(v)}
    if len(numbers) > 1:
        raise CatalogError(
            f"{where} says of several numbers that they stand for no data ({', '.join(f'{k} {v:g}' for k, v in found.items())}); write it "
            "again with one"
        )
    scale, offset = (_numbers(said.get(n), f"{n} of {where}") for n in ("scale_factor", "add_offset"))
    if set(scale) <= {1.0} and set(offset) <= {0.0}:
        scale, offset = (), ()
    return ArrayHeader(
        next(iter(numbers), None), scale or ((1.0,) if offset else ()), offset or ((0.0,) if scale else ())
    )


def _stored_number(value: Any, what: str) -> float:
    """A number of attributes, as JSON, as text, or as xarray writes floats: eight bytes in base64."""
    value = value[0] if isinstance(value, list) and len(value) == 1 else value
    try:
        return float(value)
    except (TypeError, ValueError):
        pass
    try:
        return float(struct.unpack("<d", base64.b64decode(value, validate=True))[0])
    except (TypeError, ValueError, struct.error) as exc:
        raise CorruptDataError(f"{what} is {value!r:.80}; expected a number") from exc


def _numbers(value: Any, what: str) -> tuple[float, ...]:
    if value is None:
        return ()
    return tuple(_stored_number(v, what) for v in (value if isinstance(value, list) else [value]))


def dimension_names(href: str, array: str) -> list[str]:
    """Names of an array's axes as the store has them, empty for one without a name; empty texts where it has none."""
    found = _array(href, array)
    names: Any = (
        found.attrs.get("_ARRAY_DIMENSIONS")
        if found.metadata.zarr_format == 2
        else found.metadata.dimension_names
    )
    return [str(n or "") for n in names] if names and len(names) == found.ndim else [""] * found.ndim


def array_attributes(href: str, array: str) -> dict[str, Any]:
    """Attributes of an array."""
    return dict(_array(href, array).attrs)


def attributes_of(href: str) -> dict[str, Any]:
    """Attributes of a group, and those of the group that it is in.

    Raises
    ------
    CorruptDataError
        If it is no Zarr that can be read.
    """
    own = dict(open_zarr(href).attrs)
    try:
        return {**open_zarr(absolute("..", f"{href.rstrip('/')}/zarr.json")).attrs, **own}
    except (CatalogError, CorruptDataError):
        return own  # it is in no other group


def read_coordinate(href: str, name: str) -> tuple[npt.NDArray[Any], Mapping[str, Any]] | None:
    """Values and attributes of a coordinate of a group; None where there is none."""
    try:
        found = _array(href, name)
    except (CatalogError, CorruptDataError):
        return None
    if found.ndim != 1 or found.size > 1 << 20:
        return None
    return np.asarray(found[:]), dict(found.attrs)
