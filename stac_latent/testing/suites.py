"""Conformance suites: the laws of stages and codecs, as tests that a plug-in's test class inherits."""

from __future__ import annotations

import copy
import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar, cast

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from stac_latent.aliases import LEVELS, Array
from stac_latent.codec.bundle import read_bundle, write_bundle
from stac_latent.codec.codec import Codec
from stac_latent.cube.grid.tiling import tiles, with_margin
from stac_latent.errors import CodecError, FieldError, StacLatentError
from stac_latent.field.validity import valid_mask
from stac_latent.stage import Stage, Tiled
from stac_latent.testing.strategies import damaged, fields, make_field, windows
from stac_latent.window import Window

__all__ = ["CodecConformance", "StageConformance"]

LAW = settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[
        HealthCheck.differing_executors,
        HealthCheck.too_slow,
        HealthCheck.function_scoped_fixture,
    ],
)
"""Hypothesis settings of the suites: a law is inherited by many classes, and codecs take their time."""


def _only_known_errors(decode: Any, data: bytes, truth: Array | None) -> None:
    """Damaged bytes raise a StacLatentError; if the damage is harmless, they decode to the very same array."""
    for bad in damaged(data):
        try:
            got = decode(bad)
        except StacLatentError as exc:
            assert str(exc), "an error needs a text"
        else:
            assert truth is not None, "damaged bytes were decoded without an error"
            assert np.array_equal(got, truth), "damaged bytes were decoded to something else without an error"


class StageConformance(ABC):
    """Laws of a stage; inherit, name the class ``Test...`` and define :meth:`make`."""

    channels: ClassVar[int] = 1
    """Channels of the input."""
    tolerance: ClassVar[float | None] = 0.0
    """Largest absolute difference of ``inverse(forward(x))`` to ``x``; None where there is no such bound."""

    @abstractmethod
    def make(self) -> Stage:
        """Return the stage under test."""

    def example(self, cells: tuple[int, int], seed: int) -> Array:
        """Return an input of whole cells: integer-valued float64, as the shipped transforms exchange; override at will."""
        sy, sx = self.make().stride
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[: cells[0] * sy, : cells[1] * sx]
        planes = [
            np.rint(9000 * np.sin(x / 5 + y / (11 + b)) + rng.normal(0, 900, x.shape))
            for b in range(self.channels)
        ]
        return np.stack(planes)

    def test_protocol(self) -> None:
        """The object is a Stage with a name and a level, and its parameters are JSON."""
        stage = self.make()
        assert isinstance(stage, Stage)
        assert stage.name
        assert stage.level in LEVELS
        assert json.loads(json.dumps(stage.config())) == stage.config()
        assert min(*stage.stride, *[n + 1 for n in (*stage.halo, *stage.overlap)]) >= 1

    def test_rebuild(self) -> None:
        """Parameters and tensors, through JSON and safetensors, rebuild the same stage."""
        stage = self.make()
        tensors = {k: np.ascontiguousarray(v) for k, v in stage.tensors().items()}
        again = type(stage).build(json.loads(json.dumps(stage.config())), load(save(tensors)))
        x = self.example((3, 4), 0)
        assert again.config() == stage.config()
        assert _same(again.forward(x), stage.forward(x))
        assert _same(again.inverse(stage.forward(x)), stage.inverse(stage.forward(x)))

    @LAW
    @given(cells=st.tuples(st.integers(1, 6), st.integers(1, 6)), seed=st.integers(0, 999))
    def test_shape_and_round_trip(self, cells: tuple[int, int], seed: int) -> None:
        """Whole cells become cells; the inverse has the input's shape and values; inputs are left as they were."""
        stage, x = self.make(), self.example(cells, seed)
        kept = x.copy()
        y = stage.forward(x)
        assert np.array_equal(x, kept), "forward changed its input"
        assert stage.level == "bytes" or y.shape[1:] == cells
        back = stage.inverse(y)
        assert back.shape == x.shape
        assert _same(stage.forward(kept), y), "two calls gave two results"
        if self.tolerance is not None:
            assert np.abs(back.astype(np.float64) - x).max() <= self.tolerance

    @LAW
    @given(data=st.data())
    def test_windows(self, data: st.DataObject) -> None:
        """Chunk-wise equals whole: forward with the overlap, inverse with the halo, bit for bit.

        Of a stage that is ``Tiled``, chunks are its tiles.
        """
        stage = self.make()
        if stage.level == "bytes":
            pytest.skip("a coder of bytes has no windows")
        sy, sx = stage.stride
        tiled = isinstance(stage, Tiled)
        cells = (_several(stage), 3) if tiled else (11, 13)
        x = self.example(cells, data.draw(st.integers(0, 999)))
        y = stage.forward(x)
        window = data.draw(st.sampled_from(_tiles(stage, cells)) if tiled else windows(cells))
        overlap = (-(-stage.overlap[0] // sy), -(-stage.overlap[1] // sx))
        (a, b), (c, d) = with_margin(window, overlap, cells)
        part = stage.forward(np.ascontiguousarray(x[:, a * sy : b * sy, c * sx : d * sx]))
        assert _same(part[_inner(window, (a, c))], y[(slice(None), *window.slices)])
        whole = stage.inverse(y)
        (a, b), (c, d) = with_margin(window, stage.halo, cells)
        part = stage.inverse(np.ascontiguousarray(y[:, a:b, c:d]))
        pixels = window.scaled((sy, sx))
        assert _same(part[_inner(pixels, (a * sy, c * sx))], whole[(slice(None), *pixels.slices)])

    def test_damage(self) -> None:
        """Truncated or changed payloads raise errors of this package, never others."""
        stage = self.make()
        if stage.level == "bytes":
            payload = stage.forward(self.example((5, 4), 1))
            _only_known_errors(stage.inverse, payload, stage.inverse(payload))
        else:
            assert not isinstance(stage.forward(self.example((5, 4), 1)), bytes)


class CodecConformance(ABC):
    """Laws of a codec; inherit, name the class ``Test...`` and define :meth:`make`."""

    max_error: ClassVar[float | None] = None
    """Bound of the absolute error of smooth scenes, in the stored unit; 0 for a lossless codec."""
    reach: ClassVar[tuple[float, float]] = (-1e4, 1e4)
    """Smallest and largest value of float fields that the codec is for."""

    @abstractmethod
    def make(self) -> Codec:
        """Return the codec under test."""

    @property
    def codec(self) -> Codec:
        """The codec, made once for each class."""
        cls = type(self)
        if "_made" not in cls.__dict__:
            cls._made = self.make()  # type: ignore[attr-defined]
        return cast("Codec", cls.__dict__["_made"])

    def scene(self, cells: tuple[int, int], seed: int = 0) -> tuple[Array, Array]:
        """Return a field of whole cells without NaN, and its mask."""
        codec = self.codec
        shape = (cells[0] * codec.stride[0], cells[1] * codec.stride[1])
        field = make_field(codec.bands, shape, seed, reach=self.reach)
        mask = valid_mask(field, codec.bands)
        mask = np.ones((1, *field.shape[1:]), bool) if mask is None else mask
        return (np.where(np.isnan(field), 0, field) if field.dtype.kind == "f" else field).astype(
            field.dtype
        ), mask

    def test_bundle(self) -> None:
        """A bundle rebuilds the codec; writing it twice gives the same bytes."""
        codec = self.codec
        files = write_bundle(codec)
        assert write_bundle(codec) == files
        again = read_bundle(files, space=codec.space)
        assert (again.spec, again.stats, again.chain()) == (codec.spec, codec.stats, codec.chain())
        field, mask = self.scene((3, 4))
        encoded = codec.encode(field, mask=mask, upto="symbols")
        assert _same(again.encode(field, mask=mask, upto="symbols"), encoded)
        if codec.kind == "codec":
            assert _same(again.decode(encoded), codec.decode(encoded))

    def test_space(self) -> None:
        """The digest is the same for the same codec, and another as soon as anything changes."""
        codec = self.codec
        assert self.make().space == codec.space
        first = codec.bands[0]
        changed = [
            replace(first, name="other"),
            replace(first, scale=first.scale * 2),
            replace(first, offset=0.5),
        ]
        others = [replace(codec, bands=(b, *codec.bands[1:])) for b in changed]
        for i, stage in enumerate(codec.stages):
            others += [
                replace(codec, stages=(*codec.stages[:i], one, *codec.stages[i + 1 :]))
                for one in _altered(stage)
            ]
        spaces = [codec.space, *(c.space for c in others)]
        assert len(set(spaces)) == len(spaces)

    def test_levels(self) -> None:
        """Symbols and latents have the shape, type and values that the spec states; calls are repeatable."""
        codec, spec = self.codec, self.codec.spec
        field, mask = self.scene((3, 5))
        kept = field.copy()
        encoded = codec.encode(field, mask=mask, upto="symbols")
        assert np.array_equal(field, kept), "encode changed its input"
        assert (encoded.shape, encoded.dtype.name) == ((spec.dimensions, 3, 5), spec.data_type)
        assert _same(codec.encode(field, mask=mask, upto="symbols"), encoded)
        latent = codec.decode(encoded, upto="latent")
        assert latent.dtype == np.float32
        assert _same(latent, spec.quantization.dequantise(encoded))
        if codec.kind == "codec":
            decoded = codec.decode(encoded)
            assert (decoded.shape, decoded.dtype) == (field.shape, field.dtype)
            assert _same(codec.decode(encoded), decoded)
            if self.max_error is not None:
                error = np.abs(decoded.astype(np.float64) - field)[np.broadcast_to(mask, field.shape)]
                assert error.max(initial=0) <= self.max_error

    @LAW
    @given(data=st.data())
    def test_windows(self, data: st.DataObject) -> None:
        """Chunk-wise equals whole: no symbol differs with the overlap, no pixel with the halo, but within the tolerance of the codec.

        Of a codec whose tiles decode alone (``codec.tiled``), chunks are its tiles; pixels may be cut anywhere.
        """
        codec = self.codec
        sy, sx = codec.stride
        cells = (_several(codec), 5) if codec.tiled else (10, 12)
        field, mask = self.scene(cells, data.draw(st.integers(0, 99)))
        whole = codec.encode(field, mask=mask, upto="symbols")
        w = data.draw(st.sampled_from(_tiles(codec, cells)) if codec.tiled else windows(cells))
        pixels = w.scaled(codec.stride)
        wide = with_margin(pixels, codec.overlap, (field.shape[1], field.shape[2]))
        cut = (slice(None), *wide.slices)
        part = codec.encode(field[cut], mask=mask[cut], upto="symbols")
        inner = _inner(w, (wide.y.start // sy, wide.x.start // sx))
        assert codec.agrees(part[inner], whole[(slice(None), *w.slices)])
        if codec.kind == "codec":
            at = data.draw(windows((field.shape[1], field.shape[2])))
            assert _same(codec.decode(whole, window=at), codec.decode(whole)[(slice(None), *at.slices)])

    @LAW
    @given(data=st.data())
    def test_compress(self, data: st.DataObject) -> None:
        """Fields of any height and width come back in shape and type, nodata exactly where it was."""
        codec = self.codec
        if codec.tail is None or codec.kind == "embedding":
            pytest.skip("the chain has no decodable bitstream")
        field = data.draw(fields(codec.bands, largest=3 * max(codec.stride) + 1, reach=self.reach))
        back = codec.decompress(codec.compress(field))
        assert (back.shape, back.dtype) == (field.shape, field.dtype)
        for band, a, b in zip(codec.bands, field, back, strict=True):
            if band.nodata is not None and not np.isnan(band.nodata) and self.max_error == 0:
                assert np.array_equal(a == band.nodata, b == band.nodata)
            if field.dtype.kind == "f":
                assert np.array_equal(np.isnan(a), np.isnan(b))
        if self.max_error == 0:
            assert np.array_equal(field, back, equal_nan=field.dtype.kind == "f")

    def test_bytes(self) -> None:
        """Bytes decode to the same pixels at once and over the symbols; those of a tile to its part of the whole."""
        codec = self.codec
        if codec.tail is None or codec.kind == "embedding":
            pytest.skip("the chain has no decodable bitstream")
        field, mask = self.scene((_several(codec) if codec.tiled else 2, 3))
        encoded = codec.encode(field, mask=mask, upto="symbols")
        payload = codec.entropy_encode(encoded)
        assert codec.entropy_encode(encoded) == payload
        decoded = codec.decode(payload)
        symbols = codec.entropy_decode(payload)
        assert (symbols.shape, symbols.dtype) == (encoded.shape, encoded.dtype)
        assert _same(codec.decode(symbols), decoded)
        _, h, w = decoded.shape
        assert _same(codec.decode(payload, window=((h // 3, h), (w // 4, w))), decoded[:, h // 3 :, w // 4 :])
        if codec.tiled:
            tile, _ = codec.tile_of((h, w))
            first = codec.decode(codec.entropy_encode(encoded[:, : tile // codec.stride[0]]))
            assert _same(first, decoded[:, :tile])

    def test_damage(self) -> None:
        """Truncated or changed bytes raise errors of this package, never others."""
        codec = self.codec
        field, _ = self.scene((4, 3))
        if codec.tail is None:
            with pytest.raises(CodecError, match="no entropy coder"):
                codec.entropy_encode(codec.encode(field, upto="symbols"))
            return
        payload = codec.entropy_encode(codec.encode(field, upto="symbols"))
        _only_known_errors(codec.entropy_decode, payload, codec.entropy_decode(payload))
        if codec.kind == "codec":
            _only_known_errors(codec.decompress, codec.compress(field), None)

    def test_refusals(self) -> None:
        """What does not fit is refused with a text that says what was expected."""
        codec = self.codec
        field, _ = self.scene((2, 2))
        with pytest.raises(FieldError, match=f"{len(codec.bands)} bands"):
            codec.encode(np.concatenate([field, field[:1]]), upto="symbols")
        with pytest.raises(FieldError, match="complex"):
            codec.encode(field.astype(np.complex64), upto="symbols")
        with pytest.raises(CodecError, match="not a level"):
            codec.encode(field, upto="pixels")  # type: ignore[arg-type]
        if max(codec.stride) > 1:
            with pytest.raises(FieldError, match="whole cells"):
                codec.encode(field[:, 1:, 1:], upto="symbols")
        if codec.kind == "embedding":
            with pytest.raises(CodecError, match="cannot be decoded"):
                codec.decode(codec.encode(field, upto="symbols"))


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, bytes) or isinstance(b, bytes):
        return bool(a == b)
    return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def _several(tiled: Any) -> int:
    """Fewest cells along y that are more than one tile."""
    sy, sx = tiled.stride
    return next(n for n in itertools.count(2) if tiled.tile_of((n * sy, sx))[0] < n * sy)


def _tiles(tiled: Any, cells: tuple[int, int]) -> list[Window]:
    """Cells of each tile."""
    sy, sx = tiled.stride
    y, x = tiled.tile_of((cells[0] * sy, cells[1] * sx))
    return list(tiles(cells, (y // sy, x // sx)))


def _inner(window: Window, origin: tuple[int, int]) -> tuple[slice, slice, slice]:
    return slice(None), *window.shifted((-origin[0], -origin[1])).slices


def _saying(stage: Stage, config: dict[str, Any], tensors: dict[str, Array]) -> Stage:
    """A stage that says something else of itself."""
    out = copy.copy(stage)
    out.config = lambda: config  # type: ignore[method-assign]
    out.tensors = lambda: tensors  # type: ignore[method-assign]
    return out


def _altered(stage: Stage) -> Iterator[Any]:
    """The stage with one parameter, then with one tensor value, changed."""
    config, tensors = stage.config(), stage.tensors()
    for key in config:
        yield _saying(stage, {**config, key: ["changed", config[key]]}, tensors)
    for key, values in tensors.items():
        if values.size:
            changed = values.copy()
            changed.flat[-1] += 1
            yield _saying(stage, config, {**tensors, key: changed})
