"""An embedder made of a model that you have: a codec of kind ``embedding``, which ``encode`` takes like any other."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pystac

from stac_latent.aliases import Array
from stac_latent.codec.codec import Codec
from stac_latent.errors import BundleError, CatalogError, CodecError, StacLatentError
from stac_latent.field.validity import valid_mask
from stac_latent.fitting.checks import checked_name
from stac_latent.fitting.sources import open_sources
from stac_latent.spec import Band, Stats
from stac_latent.stages.onnx import (
    LAYOUTS,
    GraphUse,
    Layout,
    OnnxEmbedder,
    check_size,
    describe_graph,
    onnx_stage,
    run_once,
)
from stac_latent.stages.transform.quantise import Power
from stac_latent.window import Span, Window

__all__ = ["embedder"]

_TRIAL = 64
"""Pixels of the image that a graph of open size is tried with, at least."""
_PLACES = 32
"""Items, or fields, that a quantiser is fitted to, at most."""
_SIDE = 256
"""Pixels along what is read of each of them."""
_TOP = 0.999
"""Share of the values that int8 holds without saturating."""


def embedder(
    model: str | os.PathLike[str] | bytes,
    bands: Sequence[Band | str],
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    stride: int | None = None,
    window: int | None = None,
    halo: int | None = None,
    layout: Layout | None = None,
    output: str | None = None,
    dtype: Literal["int8", "float32"] | None = None,
    power: float = 1.0,
    sample: pystac.Item | Iterable[pystac.Item | Array] | None = None,
    tolerance: float = 1e-3,
    name: str | None = None,
    about: Mapping[str, Any] | None = None,
) -> Codec:
    """Make an embedder of an ONNX graph.

    The graph takes one image of float32, ``(n, band, y, x)`` or ``(n, y, x, band)``, and gives one vector for it, ``(n, channel)``; a map of vectors, ``(n, channel, y, x)``; or tokens
    of a square, ``(n, token, channel)``, with or without a class token before them. Its size, and whether ``n`` is open, are read from the graph.
    It is run on one core a chunk, by ONNX Runtime (extra ``onnx``).

    Parameters
    ----------
    model
        File of the graph, or its bytes. One file with its weights inside and standard operators alone.
    bands
        Bands in the order of the graph's channels: names, by which Items are matched, or :class:`~stac_latent.spec.Band` objects that
        state type, nodata, scale, offset and wavelength, too. The unit is that of the bands; values of an Item that states another scale or offset are
        brought to it, once.
    mean, std
        What the graph was trained with, in the stored unit of each band: it is given ``(x - mean) / std``. Default 0 and 1.
    stride
        Pixels of a cell. Of graphs that give one vector an image, the whole window by default; else it follows from the graph.
    window
        Pixels along the image that the graph takes, where its size is open.
    halo
        Pixels beyond a cell that its vector depends on, of a graph without a fixed size and with a map: it then runs over chunks of any size. Windows are
        compared with the whole, and a halo that is too small is refused.
    layout
        ``cells``, ``tiles`` or ``dense``, as :mod:`stac_latent.stages.onnx` has them, where the default is not meant.
    output
        Name of the output, where it has several.
    dtype
        ``int8`` (needs ``sample``; default with it) or ``float32``.
    power
        Exponent of int8: 1 linear, 2 with more levels near zero.
    sample
        Items or fields ``(band, y, x)`` that mean and deviation of the latents, and the scales of int8, are taken from; some 32 are looked at. Items that lack
        a band are passed over.
    tolerance
        Largest difference between machines that you promise, in deviations of the latents; the bundle's probe holds others to it.
    name
        Of the codec; the file's by default.
    about
        Model card: ``description``, ``license``, ``data``, ...

    Returns
    -------
    Codec
        For ``encode``; :func:`stac_latent.codec.save_bundle` writes it to a folder that ``open_codec`` and ``--codec`` take.

    Raises
    ------
    CodecError
        If the graph takes or gives something else than the above, or arguments do not go together.
    BundleError
        If it is no graph that ONNX Runtime opens.
    CatalogError
        If no sample holds data.

    Examples
    --------
    >>> codec = embedder("resnet.onnx", ["B02", "B03", "B04"], mean=[900] * 3, std=[700] * 3)  # doctest: +SKIP
    >>> items = encode(scenes, codec, "catalogue", asset="resnet")  # doctest: +SKIP
    """
    graph, title = _read(model, name)
    known = tuple(b if isinstance(b, Band) else Band(b, nodata=0) for b in bands)
    image = _image(graph, len(known), output)
    stage = _laid(image, stride, window, halo, layout, mean, std, tolerance)
    codec = Codec(
        title, (stage,), known, kind="embedding", dimensions=stage.use.dimensions,
        granularity="patch" if max(stage.stride) > 1 else "pixel", about=dict(about or {}),
        untyped=frozenset(b for b in bands if isinstance(b, str)),
    )  # fmt: skip
    if stage.use.layout == "dense":
        _check_halo(codec, stage)
    if dtype not in (None, "int8", "float32"):
        raise CodecError(f"dtype is {dtype!r}; expected int8 or float32")
    if sample is None:
        if dtype == "int8":
            raise CodecError(
                "int8 needs its scales from imagery: pass sample=, some Items or fields, or dtype='float32'"
            )
        return codec
    return _fitted(codec, stage, _latents(codec, sample), dtype or "int8", power)


@dataclass(frozen=True)
class _Image:
    """What a graph says of its input, and the output that is taken."""

    graph: Array
    bands: int
    side: int | None
    """Pixels along an image, where that is fixed."""
    output: str
    channels_last: bool


def _read(model: str | os.PathLike[str] | bytes, name: str | None) -> tuple[Array, str]:
    if isinstance(model, bytes):
        data, own = model, "embedder"
    else:
        path = Path(model)
        own = path.stem
        try:
            check_size(path.stat().st_size)
            data = path.read_bytes()
        except OSError as exc:
            raise BundleError(f"cannot read the graph {path}: {exc.strerror or exc}") from exc
    return np.frombuffer(data, np.uint8), checked_name(name or own)


def _image(graph: Array, bands: int, output: str | None) -> _Image:
    inputs, outputs = describe_graph(graph.tobytes())
    if len(inputs) != 1:
        raise CodecError(
            f"the graph takes {len(inputs)} inputs ({', '.join(n for n, *_ in inputs)}), expected one, an image; fix the others when you export it"
        )
    ((given, kind, shape),) = inputs
    if kind != "tensor(float)" or len(shape) != 4:
        raise CodecError(
            f"the graph's input {given!r} is {kind} of {len(shape)} axes, expected float32 (n, band, y, x)"
        )
    channels_last = shape[3] == bands and shape[1] != bands
    if channels_last:
        shape = [shape[0], shape[3], shape[1], shape[2]]
    if isinstance(shape[1], int) and shape[1] != bands:
        raise CodecError(
            f"the graph takes {shape[1]} bands, and bands= names {bands}; name them in the order of its channels"
        )
    if isinstance(shape[0], int) and shape[0] not in (1, 16):
        raise CodecError(
            f"the graph takes batches of {shape[0]} images alone; export it for one, or with an open axis"
        )
    sides = [n for n in shape[2:] if isinstance(n, int)]
    if len(set(sides)) > 1 or len(sides) == 1:
        raise CodecError(
            f"the graph takes images of {shape[2]} x {shape[3]} pixels; expected squares, or both sides open"
        )
    names = [n for n, *_ in outputs]
    if output is None and len(names) > 1:
        raise CodecError(f"the graph has the outputs {', '.join(names)}; choose one with output=")
    if output is not None and output not in names:
        raise CodecError(f"the graph has no output {output!r}; it has {', '.join(names)}")
    return _Image(graph, bands, sides[0] if sides else None, output or names[0], channels_last)


def _laid(
    image: _Image, stride: int | None, window: int | None, halo: int | None, layout: Layout | None,
    mean: Sequence[float] | None, std: Sequence[float] | None, tolerance: float,
) -> OnnxEmbedder:  # fmt: skip
    """The stage: how the graph is laid over a scene, from what it gives for one image."""
    if image.side is not None and window not in (None, image.side):
        raise CodecError(
            f"the graph takes images of {image.side} pixels, and window= says {window}; leave it out"
        )
    side = image.side or window or (None if halo is None else max(_TRIAL, 2 * halo))
    if side is None:
        raise CodecError(
            "the graph takes images of any size: say which with window=, or how far a cell looks with halo="
        )
    channels, cells, skip = _tried(image, side)
    chosen = _layout(layout, cells, is_open=image.side is None, halo=halo)
    if chosen == "cells":
        step = stride or side
        if not 1 <= step <= side or (side - step) % 2:
            raise CodecError(
                f"stride is {step} and the window {side}; expected at most the window, and as much of it on either side"
            )
    elif side % cells or stride not in (None, side // cells):
        raise CodecError(
            f"the graph gives {cells} x {cells} cells for {side} x {side} pixels, and stride= says {stride}; a cell is a whole number of "
            "pixels, and stride= can be left out"
        )
    else:
        step = side // cells
    zeros, ones = [0.0] * image.bands, [1.0] * image.bands
    reach = {"cells": (side - step) // 2, "tiles": 0, "dense": halo or 0}[chosen]
    try:
        use = GraphUse(
            chosen, step, side, reach, channels, image.output, skip, image.channels_last, tolerance
        )
        return onnx_stage(image.graph, zeros if mean is None else mean, ones if std is None else std, use)
    except BundleError as exc:
        raise CodecError(str(exc)) from None


def _layout(asked: Layout | None, cells: int, *, is_open: bool, halo: int | None) -> Layout:
    """How a graph is laid over a scene, where it gives so many cells along an image."""
    default: Layout = (
        "cells" if cells == 1 and halo is None else "dense" if is_open and halo is not None else "tiles"
    )
    chosen = asked or default
    if chosen not in LAYOUTS:
        raise CodecError(f"layout is {chosen!r}; expected one of {', '.join(LAYOUTS)}")
    if chosen == "cells" and cells != 1:
        raise CodecError(f"layout 'cells' takes one vector an image, and the graph gives {cells} x {cells}")
    if chosen == "dense" and (not is_open or halo is None):
        raise CodecError("layout 'dense' needs a graph that takes images of any size, and halo=")
    if chosen != "dense" and halo is not None:
        raise CodecError(
            "halo is for graphs that take images of any size and give a map; what lies beyond the window of one image plays no part here"
        )
    return chosen


def _tried(image: _Image, side: int) -> tuple[int, int, int]:
    """Channels, cells along an image and leading tokens of what the graph gives for one."""
    given = (1, side, side, image.bands) if image.channels_last else (1, image.bands, side, side)
    shape = run_once(image.graph.tobytes(), image.output, given)
    if image.channels_last and len(shape) == 4:
        shape = (shape[0], shape[3], shape[1], shape[2])
    if len(shape) == 2:
        return shape[1], 1, 0
    if len(shape) == 4 and shape[2] == shape[3] and shape[2] <= side:
        return shape[1], shape[2], 0
    if len(shape) == 3:
        for skip in (0, 1, 5):  # none, a class token, or that and four registers
            cells = math.isqrt(max(0, shape[1] - skip))
            if cells and cells * cells + skip == shape[1]:
                return shape[2], cells, skip
    raise CodecError(
        f"the graph gives {tuple(shape)} for one image of {side} x {side} pixels, expected (1, channel), (1, channel, y, x) or (1, token, channel) of a square"
    )


def _check_halo(codec: Codec, stage: OnnxEmbedder) -> None:
    """Refuse a halo beyond which vectors still depend on pixels."""
    side = (
        max(stage.use.window, 4 * max(codec.overlap, codec.stride)[0]) // stage.use.stride * stage.use.stride
    )
    rng = np.random.default_rng(0)
    spread = stage.std[:, None, None] * rng.normal(size=(len(stage.std), side, side))
    field = np.rint(stage.mean[:, None, None] + spread)
    whole = stage.forward(field)
    near = codec.overlap[0] // stage.use.stride
    first, last = side // stage.use.stride // 2 - 1, side // stage.use.stride // 2 + 1
    a, b = max(0, first - near), min(side // stage.use.stride, last + near)
    part = stage.forward(
        np.ascontiguousarray(
            field[:, a * stage.use.stride : b * stage.use.stride, a * stage.use.stride : b * stage.use.stride]
        )
    )
    cut = slice(first - a, last - a)
    if not codec.agrees(part[:, cut, cut], whole[:, first:last, first:last]):
        gap = float(np.abs(part[:, cut, cut] - whole[:, first:last, first:last]).max())
        raise CodecError(
            f"a vector depends on pixels further than halo={stage.use.overlap} beyond its cell: a window differs from the whole by {gap:.3g}; state a larger halo"
        )


def _latents(codec: Codec, sample: pystac.Item | Iterable[pystac.Item | Array]) -> Array:
    """Vectors ``(n, channel)`` of cells with data."""
    given = [sample] if isinstance(sample, pystac.Item) else list(sample)[: 8 * _PLACES]
    found: list[Array] = []
    unread: list[str] = []
    for one in given[:: max(1, len(given) // _PLACES)]:
        try:
            field, valid = (
                _field(codec, one) if isinstance(one, pystac.Item) else (one, valid_mask(one, codec.bands))
            )
        except StacLatentError as exc:
            unread.append(str(exc))
            continue
        (sy, sx), (_, h, w) = codec.stride, field.shape
        h, w = h // sy * sy, w // sx * sx
        if not h or not w:
            continue
        field = np.ascontiguousarray(field[:, :h, :w])
        mask = np.ones((1, h, w), bool) if valid is None else np.ascontiguousarray(valid[:, :h, :w])
        latent = codec.encode(field, mask=mask, upto="latent")
        seen = mask.all(axis=0).reshape(h // sy, sy, w // sx, sx).all(axis=(1, 3))
        found.append(latent[:, seen].T)
    rows = np.concatenate(found) if found else np.zeros((0, codec.dimensions), np.float32)
    if not len(rows):
        passed = f"; {len(unread)} cannot be read, such as: {unread[0]}" if unread else ""
        raise CatalogError(
            f"no sample holds a cell of {codec.stride[0]} x {codec.stride[1]} pixels with data in all bands; pass other Items or fields{passed}"
        )
    return rows


def _field(codec: Codec, item: pystac.Item) -> tuple[Array, Array]:
    """Pixels about the middle of an Item."""
    source = open_sources([item], codec.bands, None, None, None, "nearest")[0]
    side = max(_SIDE, 2 * max(codec.stride))
    spans = [Span(max(0, n // 2 - side // 2), min(n, n // 2 + side // 2)) for n in source.grid.shape]
    field, valid = source.read(Window(*spans))[0]
    return field, valid


def _fitted(codec: Codec, stage: OnnxEmbedder, rows: Array, dtype: str, power: float) -> Codec:
    """The codec with statistics of its latents, and quantised where that is wanted."""
    stats = Stats(tuple(rows.mean(axis=0).tolist()), tuple(rows.std(axis=0).tolist()))
    if dtype == "float32":
        return replace(codec, stats=stats)
    top = np.maximum(np.quantile(np.abs(rows), _TOP, axis=0), 1e-12)
    quantised = onnx_stage(stage.graph, stage.mean.tolist(), stage.std.tolist(), stage.use, quantised=True)
    return replace(codec, stages=(quantised, Power((top ** (1 / power) / 127).tolist(), power)), stats=stats)
