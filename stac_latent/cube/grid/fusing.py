"""What a pixel has where several Items of a time step hold data: one of them, or a number that is made of all.

odc-loader fuses one source after another into what is there, by a function of two arrays. That is enough for the first valid
pixel, and for functions of a user's own; a mean needs counts and a median all sources. So the sources of a tile are one source
here (:func:`stacked`), whose reader (:class:`StackReader`) reads them and reduces their pixels.
"""

from __future__ import annotations

import hashlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import numpy as np
from odc.geo.geobox import GeoBox
from odc.loader import RasterLoadParams, RasterSource

from stac_latent.aliases import Array
from stac_latent.cube.grid.properties import Bins
from stac_latent.errors import CatalogError
from stac_latent.spec import Band
from stac_latent.system.suggest import did_you_mean

__all__ = ["Fuse", "Method", "StackReader", "check_fuser", "fuser_of", "is_stack", "stacked"]

Method = Literal["first", "last", "min", "max", "mean", "median"]
_METHODS: tuple[str, ...] = get_args(Method)
Fuser = Callable[[Array, Array], None]
Fuse = str | Fuser | Mapping[str, str | Fuser | None] | None
"""One for all bands, or by the name of the band (``"*"``: the others)."""
_STRIP = 32 * 2**20
_EXPECTED = (
    f"expected one of {', '.join(_METHODS)}, or a function fuser(dst, src) -> None of a module, as such or by its name as "
    "'module.function', which puts pixels of src into dst"
)


def fuser_of(fuse: Fuse, band: str) -> str:
    """The method of a band, or the dotted name of a function.

    Parameters
    ----------
    fuse
        As of :func:`stac_latent.load`.
    band
        Its name.

    Raises
    ------
    CatalogError
        If there is no such method, or no function that another process could import by that name.
    """
    chosen = fuse.get(band, fuse.get("*")) if isinstance(fuse, Mapping) else fuse
    if chosen is None:
        return "first"
    if isinstance(chosen, str):
        if chosen in _METHODS:
            return chosen
        if "." not in chosen:
            raise CatalogError(
                f"fuse_func={chosen!r} is unknown{did_you_mean(chosen, _METHODS)}; {_EXPECTED}"
            )
        _check(chosen, _imported(chosen))
        return chosen
    if not callable(chosen):
        raise CatalogError(f"fuse_func={chosen!r:.100} is none; {_EXPECTED}")
    if not inspect.isroutine(chosen) or "<" in chosen.__qualname__ or "." in chosen.__qualname__:
        raise CatalogError(
            f"fuse_func={chosen!r:.100} is no function at the top of a module, by whose name workers could import it; {_EXPECTED}"
        )
    name = f"{chosen.__module__}.{chosen.__qualname__}"
    _check(name, _imported(name))
    return name


def _imported(name: str) -> Any:
    module, _, function = name.rpartition(".")
    try:
        return pkgutil.resolve_name(f"{module}:{function}")
    except (ImportError, AttributeError, ValueError) as exc:
        raise CatalogError(f"fuse_func={name!r} cannot be imported ({exc}); {_EXPECTED}") from exc


def _check(name: str, fuser: Any) -> None:
    if not callable(fuser):
        raise CatalogError(f"fuse_func={name!r} is a {type(fuser).__name__}; {_EXPECTED}")
    try:
        inspect.signature(fuser).bind(None, None)
    except TypeError as exc:
        raise CatalogError(f"fuse_func={name!r} does not take two arrays ({exc}); {_EXPECTED}") from exc
    except ValueError:  # a function of C without a signature
        return


def check_fuser(band: Band, fuse: str) -> None:
    """Refuse methods that rank where values have no order, with :class:`CatalogError`."""
    if band.is_complex and fuse in ("min", "max", "median"):
        raise CatalogError(
            f"fuse_func={fuse!r} ranks values, and band {band.name!r} is {band.data_type}; for complex values there are first, last and mean"
        )


# -- several sources as one ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Stack:
    members: tuple[RasterSource, ...]
    method: str


def is_stack(driver_data: Any) -> bool:
    """Whether a source's ``driver_data`` is that of several sources."""
    return isinstance(driver_data, dict) and isinstance(driver_data.get("stack"), _Stack)


def stacked(
    sources: Sequence[Mapping[str, Any]], bins: Bins, methods: Mapping[str, str]
) -> tuple[list[dict[str, Any]], dict[tuple[int, int, int], list[int]]]:
    """Sources and bins where those of a tile are one source, for the variables of ``methods``; others stay as they are.

    Parameters
    ----------
    sources
        Of each Item, by variable.
    bins
        Which Items reach which tile, in the order in which they are read.
    methods
        How each of these variables is reduced.
    """
    out = [{name: s for name, s in source.items() if name not in methods} for source in sources]
    known: dict[tuple[int, ...], int] = {}
    placed = {}
    for tile, members in bins.items():
        key = tuple(members)
        if key not in known:
            known[key] = len(out)
            of = {name: [s for i in key if (s := sources[i].get(name)) is not None] for name in methods}
            out.append({name: _one(found, methods[name]) for name, found in of.items() if found})
        placed[tile] = [*members, known[key]]
    return out, placed


def _one(members: Sequence[RasterSource], method: str) -> RasterSource:
    first = members[0]
    if len(members) == 1:
        return first
    text = "|".join(f"{m.uri} {m.band} {m.subdataset}" for m in members)
    digest = hashlib.sha256(f"{method}|{text}".encode()).hexdigest()
    data = {"subdataset": digest, "stack": _Stack(tuple(m.strip() for m in members), method)}
    return RasterSource(f"{method} of {len(members)}", first.band, digest, None, first.meta, data)


class _Reader(Protocol):
    def read(self, cfg: RasterLoadParams, dst_geobox: GeoBox, *, selection: Any = None) -> tuple[Any, Array]:
        """Part of the grid that the source reaches, and its pixels there."""
        ...


class StackReader:
    """Reads several sources and reduces their pixels.

    Parameters
    ----------
    src
        A source of :func:`stacked`.
    opened
        Opens the reader of one of its members.
    """

    def __init__(self, src: RasterSource, opened: Callable[[RasterSource], _Reader]) -> None:
        self._stack: _Stack = src.driver_data["stack"]
        self._opened = opened

    def read(
        self, cfg: RasterLoadParams, dst_geobox: GeoBox, *, dst: Array | None = None, selection: Any = None
    ) -> tuple[Any, Array]:
        """Pixels of all of ``dst_geobox``; see :class:`stac_latent.cube.read.driver.FieldReader`."""
        parts = (self._opened(m).read(cfg, dst_geobox, selection=selection) for m in self._stack.members)
        whole = (slice(0, dst_geobox.shape.y), slice(0, dst_geobox.shape.x))
        out = reduced(parts, self._stack.method, dst_geobox.shape.yx, cfg)
        if dst is None:
            return whole, out
        dst[...] = out
        return whole, dst


def reduced(
    parts: Iterable[tuple[Any, Array]],
    method: str,
    shape: tuple[int, int],
    cfg: RasterLoadParams,
    strip: int = _STRIP,
) -> Array:
    """Pixels ``(..., y, x)`` made of those of several sources.

    Parameters
    ----------
    parts
        Where each source lies in ``shape``, and its pixels.
    method
        Pixels without data take no part in it. Means and medians are computed in float64; integers are rounded to the
        nearest, halves to the even one.
    shape
        Pixels (y, x).
    cfg
        Type and nodata; integers without nodata have 0 there.
    strip
        Bytes of float64 of all sources that a median sorts at a time.
    """
    dtype = np.dtype(cfg.dtype)
    fill = cfg.fill_value
    empty = dtype.type(0 if dtype.kind not in "fc" else np.nan) if fill is None else dtype.type(fill)
    if method == "median":
        return _median(list(parts), shape, empty, strip)
    out: Array | None = None
    total = count = np.empty(0)
    for roi, pixels in parts:
        if out is None:
            out = np.full((*pixels.shape[:-2], *shape), empty, dtype)
            if method == "mean":
                total = np.zeros(out.shape, np.result_type(dtype, np.float64))
                count = np.zeros(out.shape, np.int32)
        where, here = (..., *roi), ~_missing(pixels, empty)
        have = out[where]
        if method == "mean":
            with np.errstate(invalid="ignore", over="ignore"):  # of infinite ones
                np.add(total[where], pixels, out=total[where], where=here)
            count[where] += here
            continue
        if method in ("min", "max"):
            less = pixels < have if method == "min" else pixels > have
            here &= _missing(have, empty) | less
        np.copyto(have, pixels, where=here)
    assert out is not None  # noqa: S101 - a stack has members
    if method == "mean":
        _put(out, total / np.maximum(count, 1), count > 0)
    return out


def _median(parts: Sequence[tuple[Any, Array]], shape: tuple[int, int], empty: Any, limit: int) -> Array:
    """Sorted strip by strip, so that the copy in float64 stays small whatever the sources hold."""
    lead = parts[0][1].shape[:-2]
    out = np.full((*lead, *shape), empty, empty.dtype)
    row = max(1, len(parts) * int(np.prod(lead)) * shape[1] * 8)
    step = max(1, limit // row)
    for top in range(0, shape[0], step):
        strip = out[..., top : top + step, :]
        stack = np.full((len(parts), *strip.shape), np.nan)
        for layer, (roi, pixels) in zip(stack, parts, strict=True):
            rows = slice(max(roi[0].start, top), min(roi[0].stop, top + step))
            if rows.start >= rows.stop:
                continue
            found = pixels[..., rows.start - roi[0].start : rows.stop - roi[0].start, :]
            part = layer[..., rows.start - top : rows.stop - top, roi[1]]
            np.copyto(part, found, where=~_missing(found, empty))
        stack.sort(axis=0)  # NaN comes last
        n = np.maximum((~np.isnan(stack)).sum(axis=0), 1)
        low, high = (np.take_along_axis(stack, k[None], axis=0)[0] for k in ((n - 1) // 2, n // 2))
        with np.errstate(invalid="ignore"):  # of two infinite ones
            middle = np.where(low == high, low, (low + high) / 2)
        _put(strip, middle, ~np.isnan(middle))
    return out


def _missing(pixels: Array, empty: Any) -> Array:
    missing = np.isnan(pixels) if pixels.dtype.kind in "fc" else np.zeros(pixels.shape, bool)
    return missing if np.isnan(empty) else missing | (pixels == empty)


def _put(out: Array, values: Array, where: Array) -> None:
    """Numbers into an array of another type, integers rounded."""
    found = np.rint(values) if out.dtype.kind in "iu" else values
    np.copyto(out, np.where(where, found, 0).astype(out.dtype), where=where)
