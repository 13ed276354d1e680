"""Embedders that are ONNX graphs, run by ONNX Runtime on the CPU (extra ``onnx``).

A graph takes one image ``(n, band, y, x)``, or with the bands last, of float32 and gives vectors, ``(n, channel)`` or ``(n, channel, y, x)``, or tokens ``(n, token, channel)``.
How it is laid over a scene is part of the stage, and hence of the space:

``cells``
    A vector for each cell of ``stride`` pixels, from a window of ``window`` pixels about it, each by itself.
``tiles``
    A square of cells for each window of ``window`` pixels; windows lie side by side.
``dense``
    A cell for each ``stride`` pixels of a field of any size; vectors depend on pixels that are at most ``overlap`` beyond their cell.

ONNX Runtime promises no equal bits on other machines or in other versions, nor for other sizes of a field: what such a stage gives is equal within
its tolerance.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, cast

import numpy as np

from stac_latent.aliases import Array, Level
from stac_latent.errors import BundleError, CodecError, FieldError
from stac_latent.stage import Platform, StoresType, Tiled
from stac_latent.stages.base import FRACTION_BITS, BaseStage, take

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

__all__ = [
    "LAYOUTS",
    "GraphUse",
    "Layout",
    "OnnxEmbedder",
    "OnnxTiles",
    "describe_graph",
    "onnx_stage",
    "run_once",
]

Layout = Literal["cells", "tiles", "dense"]
LAYOUTS: tuple[Layout, ...] = ("cells", "tiles", "dense")
_BATCH = 16
"""Windows that are given to a graph together, always so many: fewer could be computed in another order."""
_LARGEST = 256 << 20
"""Bytes of a graph; a protobuf message ends at 2 GiB, and a bundle before."""
_CHANNELS = 65_536


@dataclass(frozen=True)
class GraphUse:
    """How a graph is laid over a scene, and what is taken of what it gives."""

    layout: Layout
    stride: int
    """Pixels along a cell."""
    window: int
    """Pixels along an image."""
    overlap: int
    """Pixels beyond a cell that its vector depends on."""
    dimensions: int
    """Channels of a vector."""
    output: str
    """Name of the output that is taken."""
    skip: int = 0
    """Tokens before those of the image, such as a class token."""
    channels_last: bool = False
    """Whether images, and maps, are ``(n, y, x, band)``."""
    tolerance: float = 1e-3
    """Largest difference between machines, in deviations of the latents."""

    def __post_init__(self) -> None:
        """Refuse numbers that do not go together."""
        counted = (self.stride, self.window, self.overlap, self.dimensions, self.skip)
        sizes = all(type(n) is int for n in counted)
        sizes = sizes and 1 <= self.stride <= self.window <= 4096 and 0 <= self.overlap <= 4096
        even = (
            (self.window - self.stride) % 2 == 0
            if self.layout == "cells"
            else self.window % max(1, self.stride) == 0
        )
        counts = 1 <= self.dimensions <= _CHANNELS and 0 <= self.skip < 64 and 0 < self.tolerance < 1
        if self.layout not in LAYOUTS or not sizes or not even or not counts:
            raise BundleError(
                f"a graph with {self} cannot be laid over a scene: layouts are {', '.join(LAYOUTS)}, a window is a whole number of strides (of 'cells', "
                "as much longer on both sides), and a tolerance lies between 0 and 1"
            )


class OnnxEmbedder(BaseStage, Platform, StoresType):
    """A graph over ``cells`` or ``dense``: stored values to latents.

    Parameters
    ----------
    graph
        The file, uint8.
    mean, std
        One value for each band, in its stored unit: the graph is given ``(x - mean) / std``.
    use
        How it is laid over a scene.
    quantised
        Whether a quantiser follows, which takes units of 2**-4.
    """

    name: ClassVar[str] = "onnx"
    level: ClassVar[Level] = "latent"
    layouts: ClassVar[tuple[Layout, ...]] = ("cells", "dense")
    data_type = "float32"

    def __init__(
        self,
        graph: Array,
        mean: Sequence[float],
        std: Sequence[float],
        use: GraphUse,
        *,
        quantised: bool = False,
    ) -> None:
        self.graph = np.ascontiguousarray(graph, np.uint8)
        self.mean, self.std = np.asarray(mean, np.float64), np.asarray(std, np.float64)
        if self.mean.ndim != 1 or self.mean.shape != self.std.shape or not self.mean.size:
            raise BundleError(
                f"{self.name}: one mean and one deviation for each band; got {self.mean.shape} and {self.std.shape}"
            )
        if not (np.isfinite(self.mean).all() and np.isfinite(self.std).all() and (self.std > 0).all()):
            raise BundleError(f"{self.name}: means must be finite and deviations positive")
        if use.layout not in self.layouts:
            raise BundleError(f"{self.name}: layout {use.layout!r}; expected {' or '.join(self.layouts)}")
        self.use, self.quantised, self.tolerance = use, bool(quantised), use.tolerance
        self._lock = threading.Lock()
        self._session: InferenceSession | None = None

    @property
    def stride(self) -> tuple[int, int]:
        """Pixels of a cell (y, x)."""
        return (self.use.stride, self.use.stride)

    @property
    def overlap(self) -> tuple[int, int]:
        """Pixels about a cell that its vector depends on (y, x)."""
        return (self.use.overlap, self.use.overlap)

    def forward(self, x: Array) -> Array:
        """``(band, y, x)`` of stored values to ``(channel, y, x)``: float32, or where a quantiser follows float64 in units of 2**-4.

        Raises
        ------
        FieldError
            If a value is NaN or infinite: pixels without data belong in the mask.
        CodecError
            If the graph gives values that are none, or another shape than it said.
        """
        if x.dtype.kind in "fc" and not np.isfinite(x).all():
            raise FieldError(
                "the field holds NaN or infinite values outside its mask; mask them as nodata first"
            )
        scaled = ((x - self.mean[:, None, None]) / self.std[:, None, None]).astype(np.float32)
        out = self._embedded(scaled)
        if not np.isfinite(out).all():
            raise CodecError(
                "the graph gives NaN or infinite values for finite pixels; check mean= and std=, which are in the stored unit of each band"
            )
        return out.astype(np.float64) * 2.0**FRACTION_BITS if self.quantised else out

    def _embedded(self, scaled: Array) -> Array:
        cells = (scaled.shape[1] // self.use.stride, scaled.shape[2] // self.use.stride)
        if self.use.layout == "dense":
            whole: Array = self._run(scaled[None], cells)[0]
            return whole
        padded = _padded(
            scaled, (self.use.window - self.use.stride) // 2, (self.use.window - self.use.stride) // 2
        )
        views = np.lib.stride_tricks.sliding_window_view(
            padded, (self.use.window, self.use.window), axis=(1, 2)
        )
        views = views[:, :: self.use.stride, :: self.use.stride].transpose(1, 2, 0, 3, 4)
        out = np.empty((math.prod(cells), self.use.dimensions), np.float32)
        windows = views.reshape(-1, *views.shape[2:]) if math.prod(cells) <= _BATCH else None
        for at in range(0, len(out), _BATCH):
            numbers = np.arange(at, min(at + _BATCH, len(out)))
            batch = windows if windows is not None else views[numbers // cells[1], numbers % cells[1]]
            out[numbers] = self._batch(batch, (1, 1))[:, :, 0, 0]
        return np.ascontiguousarray(out.T).reshape(-1, *cells)

    def _batch(self, windows: Array, cells: tuple[int, int]) -> Array:
        """Vectors ``(n, channel, y, x)`` of at most :data:`_BATCH` windows."""
        full = np.zeros((_BATCH, *windows.shape[1:]), np.float32)
        full[: len(windows)] = windows
        if self._fixed_batch == 1:
            return np.concatenate([self._run(full[i : i + 1], cells) for i in range(len(windows))])
        return self._run(full, cells)[: len(windows)]

    def _run(self, images: Array, cells: tuple[int, int]) -> Array:
        session = self.session
        given = session.get_inputs()[0].name
        laid = images.transpose(0, 2, 3, 1) if self.use.channels_last else images
        try:
            (found,) = session.run([self.use.output], {given: np.ascontiguousarray(laid)})
        except Exception as exc:  # ONNX Runtime has classes of its own for each status, in C++
            raise CodecError(
                f"the graph does not run on images of shape {images.shape}: {_first(exc)}"
            ) from exc
        out = _as_grid(np.asarray(found), self.use.skip, cells, channels_last=self.use.channels_last)
        if out is None or out.shape != (len(images), self.use.dimensions, *cells):
            raise CodecError(
                f"the graph gives {np.shape(found)} for images of shape {images.shape}, expected {self.use.dimensions} channels of {cells[0]} x {cells[1]} "
                f"cells of {self.use.stride} pixels; check stride=, window= and layout="
            )
        return out.astype(np.float32, copy=False)

    @property
    def _fixed_batch(self) -> int | None:
        size = self.session.get_inputs()[0].shape[0]
        return size if isinstance(size, int) else None

    @property
    def session(self) -> InferenceSession:
        """The graph, opened once in a process.

        Raises
        ------
        CodecError
            If ONNX Runtime is not installed.
        BundleError
            If it is no graph that ONNX Runtime opens.
        """
        with self._lock:
            if self._session is None:
                self._session = open_graph(self.graph.tobytes())
            return self._session

    def inverse(self, y: Array) -> Array:  # noqa: ARG002
        """Embeddings are not decoded.

        Raises
        ------
        CodecError
            Always.
        """
        raise CodecError("an embedding cannot be decoded to pixels; read it with upto='latent'")

    def config(self) -> dict[str, Any]:
        """All but the graph."""
        return {
            "mean": self.mean.tolist(),
            "std": self.std.tolist(),
            "quantised": self.quantised,
            **asdict(self.use),
        }

    def tensors(self) -> dict[str, Array]:
        """The graph's file."""
        return {"graph": self.graph}

    @classmethod
    def build(cls, config: Mapping[str, Any], tensors: Mapping[str, Array]) -> Self:
        """Rebuild from :meth:`config` and :meth:`tensors`."""
        graph = take(tensors, "graph", cls.name, 1, "u")
        rest = {k: v for k, v in config.items() if k not in ("mean", "std", "quantised")}
        return cls(graph, config["mean"], config["std"], GraphUse(**rest), quantised=config["quantised"])

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self).build, (self.config(), self.tensors()))


class OnnxTiles(OnnxEmbedder, Tiled):
    """A graph over ``tiles``: windows side by side, each a square of cells."""

    name: ClassVar[str] = "onnx-tiles"
    layouts: ClassVar[tuple[Layout, ...]] = ("tiles",)

    def tile_of(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Pixels (y, x) of a window."""
        del shape
        return (self.use.window, self.use.window)

    def _embedded(self, scaled: Array) -> Array:
        _, height, width = scaled.shape
        rows, columns = -(-height // self.use.window), -(-width // self.use.window)
        padded = _padded(scaled, 0, 0, rows * self.use.window - height, columns * self.use.window - width)
        per = self.use.window // self.use.stride
        tiles = padded.reshape(len(padded), rows, self.use.window, columns, self.use.window).transpose(
            1, 3, 0, 2, 4
        )
        tiles = tiles.reshape(-1, *tiles.shape[2:])
        parts = [self._batch(tiles[i : i + _BATCH], (per, per)) for i in range(0, len(tiles), _BATCH)]
        out = (
            np.concatenate(parts)
            .reshape(rows, columns, self.use.dimensions, per, per)
            .transpose(2, 0, 3, 1, 4)
        )
        out = out.reshape(self.use.dimensions, rows * per, columns * per)
        return np.ascontiguousarray(out[:, : height // self.use.stride, : width // self.use.stride])


def onnx_stage(
    graph: Array, mean: Sequence[float], std: Sequence[float], use: GraphUse, *, quantised: bool = False
) -> OnnxEmbedder:
    """The stage of a layout; see :class:`OnnxEmbedder`."""
    kind = OnnxTiles if use.layout == "tiles" else OnnxEmbedder
    return kind(graph, mean, std, use, quantised=quantised)


def check_size(size: int) -> None:
    """Refuse a graph of more bytes than fit in a bundle.

    Raises
    ------
    BundleError
        If it has more.
    """
    if size > _LARGEST:
        raise BundleError(
            f"the graph has {size:,} bytes; at most {_LARGEST:,} fit in a bundle: export it in half precision, or quantised"
        )


def open_graph(data: bytes) -> InferenceSession:
    """A graph, ready to run on one thread; see :attr:`OnnxEmbedder.session`."""
    check_size(len(data))
    if _reads_files(data):
        raise BundleError(
            "the graph keeps weights in other files, which are not read: export it as one file, with its weights inside"
        )
    try:
        import onnxruntime as ort
    except ImportError as exc:
        raise CodecError(
            f"embedders that are ONNX graphs need ONNX Runtime ({exc}); pip install 'stac-latent[onnx]'"
        ) from None
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = (
        1  # chunks are embedded by threads of their own
    )
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as exc:
        raise BundleError(
            f"this is no ONNX graph that can be opened: {_first(exc)}; export it as one file, with its weights inside and standard operators alone"
        ) from exc


_TENSOR, _SPARSE, _GRAPH, _NODE, _ATTRIBUTE, _FUNCTION, _MODEL = range(7)
_EXTERNAL = 13
"""Field of a tensor: where its data lie, if elsewhere."""
_WITHIN = {
    _MODEL: {7: _GRAPH, 25: _FUNCTION},
    _GRAPH: {1: _NODE, 5: _TENSOR, 15: _SPARSE},
    _FUNCTION: {7: _NODE},
    _NODE: {5: _ATTRIBUTE},
    _ATTRIBUTE: {5: _TENSOR, 6: _GRAPH, 10: _TENSOR, 11: _GRAPH, 22: _SPARSE, 23: _SPARSE},
    _SPARSE: {1: _TENSOR, 2: _TENSOR},
    _TENSOR: {_EXTERNAL: _TENSOR},
}
"""Messages within messages by their field numbers, as onnx.proto has them, as far as tensors lie in them."""


def _reads_files(data: bytes) -> bool:
    """Whether any tensor of a graph says that its data lie in another file: ONNX Runtime would look for it beside the process.

    Raises
    ------
    BundleError
        If these are no messages of protobuf.
    """
    waiting = [(memoryview(data), _MODEL)]
    try:
        while waiting:
            message, kind = waiting.pop()
            for number, value in _fields(message):
                if kind == _TENSOR and number == _EXTERNAL:
                    return True
                if number in _WITHIN[kind] and value is not None:
                    waiting.append((value, _WITHIN[kind][number]))
    except (IndexError, ValueError):
        raise BundleError(
            "this is no ONNX graph that can be opened: it is no protobuf message; export it as one file"
        ) from None
    return False


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | None]]:
    """Number of each field of a protobuf message, and its bytes where it has a length."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == 2:
            size, at = _varint(message, at)
            if size > len(message) - at:
                raise ValueError("a field is longer than its message")
            yield number, message[at : at + size]
            at += size
        elif wire == 0:
            _, at = _varint(message, at)
            yield number, None
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
            yield number, None
        else:
            raise ValueError("an unknown kind of field")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number and where it ends."""
    out = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        at += 1
        out |= (byte & 127) << shift
        if byte < 128:
            return out, at
    raise ValueError("a number without an end")


def describe_graph(data: bytes) -> tuple[list[tuple[str, str, list[Any]]], list[tuple[str, str, list[Any]]]]:
    """Name, type and shape of the inputs and of the outputs of a graph; sizes that are open are text or None."""
    session = open_graph(data)
    return tuple(  # type: ignore[return-value]
        [(n.name, n.type, list(n.shape)) for n in nodes]
        for nodes in (session.get_inputs(), session.get_outputs())
    )


def run_once(data: bytes, output: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of what a graph gives for an image of a shape.

    Raises
    ------
    CodecError
        If it does not run on one.
    """
    session = open_graph(data)
    image = np.zeros(shape, np.float32)
    try:
        (found,) = session.run([output], {session.get_inputs()[0].name: image})
    except Exception as exc:  # as in _run
        raise CodecError(
            f"the graph does not run on an image of shape {shape}: {_first(exc)}; check window="
        ) from exc
    return np.shape(found)


def _padded(x: Array, top: int, left: int, bottom: int | None = None, right: int | None = None) -> Array:
    """More pixels about a field, mirrored at its ends, again and again where it is small."""
    wide = ((0, 0), (top, top if bottom is None else bottom), (left, left if right is None else right))
    return np.pad(x, wide, mode="symmetric") if np.any(wide) else x


def _as_grid(found: Array, skip: int, cells: tuple[int, int], *, channels_last: bool) -> Array | None:
    """Vectors, tokens or maps as ``(n, channel, y, x)``; None where they are none of these."""
    if found.ndim == 2 and cells == (1, 1):
        return found[:, :, None, None]
    if found.ndim == 3 and found.shape[1] == skip + math.prod(cells):
        return cast("Array", found[:, skip:].transpose(0, 2, 1).reshape(len(found), found.shape[2], *cells))
    if found.ndim != 4:
        return None
    return found.transpose(0, 3, 1, 2) if channels_last else found


def _first(exc: BaseException) -> str:
    """The first line of what ONNX Runtime says, without its codes."""
    text = str(exc).strip().splitlines()
    return (text[0] if text else type(exc).__name__)[:300]
