"""Encode one source into one latent store, shard by shard in bounded memory, and verify it by a cold decode."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import zarr

from stac_latent.codec.codec import Codec
from stac_latent.cube.grid.tiling import tiles
from stac_latent.cube.keyframe.decode import open_key_frame
from stac_latent.cube.keyframe.encode import ReferenceCoder, relative_href
from stac_latent.cube.raw.contract import Trust
from stac_latent.cube.raw.files import RawFiles
from stac_latent.cube.read.band_views import band_objects, group_names
from stac_latent.cube.ref import LatentRef, band_places
from stac_latent.cube.write.masks import write_mask
from stac_latent.cube.write.monitor import Asked, Watch, findings, refusals
from stac_latent.cube.write.residual import write_residual
from stac_latent.cube.write.strip import encode_strip
from stac_latent.cube.write.verify import STRIP, Progress, Source, Sums, measurements, verify_store
from stac_latent.errors import FieldError, GuardError
from stac_latent.field.error_bound import ErrorBound
from stac_latent.quality.distortion import Distortion
from stac_latent.secure import Encrypt, Key, Sealed, context_of
from stac_latent.spec import Band, Grid, Spec
from stac_latent.stages.residual.payload import BITSTREAM
from stac_latent.store.zarr.encrypted_store import write_manifest
from stac_latent.store.zarr.group import Payload, chunk_cells, create, finish
from stac_latent.store.zarr.known_metadata import layout_fields
from stac_latent.store.zarr.ood_scores import write_scores
from stac_latent.store.zarr.residual import SPARSE, mark_residual
from stac_latent.system.files import tree_size
from stac_latent.window import Span, Window

if TYPE_CHECKING:
    import pystac
    from odc.geo.geobox import GeoBox

    from stac_latent.cube.raw.source import SourceBand

__all__ = ["Encoded", "asset_spec", "encode_source"]


@dataclass(frozen=True)
class Encoded:
    """What was written, and how good it is."""

    spec: Spec
    grid: Grid
    """Grid that the asset's fields carry: pixels for a codec, cells for an embedding."""
    size: int
    """Bytes of the store, metadata and mask included."""
    fields: Mapping[str, Any]
    """``latent:`` measurements; empty for an embedding, but for its rate."""
    reference: LatentRef | None = None
    """The key frame, where any chunk was coded against it."""
    unusual: tuple[str, ...] = ()
    """What the guard and the checks found, in words."""


def asset_spec(
    codec: Codec, payload: Payload, bands: tuple[Band, ...], bound: ErrorBound | None = None
) -> Spec:
    """The codec's contract with the bitstream of the payload, that of residuals, and the scales of the source's bands."""
    residual = None if bound is None else BITSTREAM
    bitstream = codec.bitstream if payload == "coded" else None
    return replace(codec.spec, bitstream=bitstream, residual=residual, bands=bands)


class Scene(Source, Protocol):
    """A source whose bands may have pixels of several sizes; see :class:`~stac_latent.cube.raw.source.ItemSource`."""

    item: pystac.Item
    bands: list[SourceBand]
    resampling: str
    infinite: bool
    """Whether infinite values are data."""
    placed: Trust
    """Whose grid is taken, the file's or the Item's."""
    boxes: list[GeoBox]
    """Each band's own pixels: those of the grid, or two, four or eight times as large."""
    samples: int
    """Pixels of all bands, each on its own grid."""


def encode_source(
    sources: Sequence[Scene],
    coders: Sequence[Codec],
    path: Path,
    payload: Payload,
    bundle: Path,
    progress: Progress | None = None,
    reference: LatentRef | None = None,
    bound: ErrorBound | None = None,
    key: Key | None = None,
    asked: Asked | None = None,
) -> Encoded:
    """Write a latent group at ``path`` and verify it.

    Parameters
    ----------
    sources
        Pixels of each lattice; read to encode; :class:`~stac_latent.cube.raw.files.RawFiles` reads the same files to verify.
    coders
        What to encode each with: the parts of one codec, aimed at a target or not.
    path
        New folder; the caller renames it into place.
    payload
        ``coded`` or ``plain``; see :func:`stac_latent.store.zarr.group.create`.
    bundle
        Folder of the codec's bundle as it was written: the verification opens a fresh codec from there.
    progress
        Called after each shard.
    reference
        Key frame of the same cells and space, against which chunks are coded where that takes fewer bytes; of one lattice.
    bound
        Kept in every valid pixel of the bands of all sources, by residuals of what the stored latents decode to.
    key
        Encrypts the chunks, under a data key of their own.
    asked
        Guard and checks; None for none.

    Returns
    -------
    Encoded
        With PSNR, largest error and bpppb, measured on what a cold decode of the stored bytes gives.

    Raises
    ------
    FieldError
        If no pixel is valid.
    GuardError
        If the policy or a check refuses it.
    VerificationError
        If the stored bytes do not decode to what was encoded.
    """
    names = group_names([s.boxes for s in sources])
    parts = zip(sources, coders, names, strict=True)
    bounds = [None] * len(coders) if bound is None else bound.split([len(c.bands) for c in coders])
    layers = [_Layer(s, c, path / n, payload, bundle, i, n, bounds[i]) for i, (s, c, n) in enumerate(parts)]
    first = layers[0]
    spec = replace(first.spec, bands=tuple(b for x in layers for b in x.spec.bands))
    native = first.bands(layers)
    sealed = {} if key is None else _seal(layers, key, context_of(spec, first.where, band_places(native)))
    valid_pixels = 0
    sums = []
    for layer in layers:
        valid, crcs = layer.write(layers if layer is layers[0] else [layer], progress, reference)
        valid_pixels += valid
        sums.append(crcs)
    if not valid_pixels:
        raise FieldError("no pixel of the source is valid: every one is nodata; there is nothing to encode")
    used = reference if first.coder is not None and first.coder.used else None
    if first.coder is not None and used is not None:
        if not first.coder.pays:
            shutil.rmtree(path)
            return encode_source(sources, coders, path, payload, bundle, progress, bound=bound, asked=asked)
        first.coder.write(path, relative_href(used.href, path))
    for layer in reversed(layers):
        layer.bind(progress, used)
        layer.close()
    asked = asked or Asked()
    watches = asked.watches(coders)
    found = _measured(layers, sums, watches, progress, used)
    held: dict[str, Any] = {}
    if asked.policy == "fallback" and (count := sum(len(w.flagged) for w in watches)):
        held = {"latent:fallback_tiles": count, "latent:fallback_bound": asked.bound}
        for layer, watch in zip(reversed(layers), reversed(watches), strict=True):
            layer.hold(watch.flagged, asked.bound, progress, used)
            layer.close()
        again = asked.watches(coders, judge=False)
        found = _measured(layers, sums, again, progress, used)
        watches = [replace(w, checks=a.checks) for w, a in zip(watches, again, strict=True)]
    outcome = findings(watches, asked.policy) | held
    unusual, refused = refusals(watches, outcome, asked.policy)
    if refused:
        raise GuardError("; ".join(unusual))
    _write_scores(layers, watches)
    size = tree_size(path)
    rate = {"latent:bits_per_pixel": size * 8 / sum(s.samples for s in sources)}
    kept = {} if bound is None else bound.to_fields(found.magnitudes)
    layout = layout_fields(path, first.masks, first.seal) if len(layers) == 1 else {}
    fields = {
        **rate,
        **layout,
        **measurements(found),
        **kept,
        **outcome,
        **native,
        **sealed,
        **_origin(layers),
    }
    spec = replace(spec, residual=first.spec.residual)
    return Encoded(spec, first.where, size, fields, used, tuple(unusual))


def _measured(
    layers: Sequence[_Layer], sums: Sequence[Mapping[Window, Sums]], watches: Sequence[Watch], progress: Progress | None,
    used: LatentRef | None,
) -> Distortion:  # fmt: skip
    """What a cold decode of all lattices measures."""
    rows = zip(layers, sums, watches, strict=True)
    return Distortion.merged([x.verify(crcs, progress, used, watch) for x, crcs, watch in rows])


def _origin(layers: Sequence[_Layer]) -> dict[str, Any]:
    """What a later verification has to know to read the same pixels again."""
    out: dict[str, Any] = {"latent:sources": [b.name for x in layers for b in x.source.bands]}
    if any(x.truth.assembled for x in layers):
        out["latent:resampling"] = layers[0].source.resampling
    return out


def _write_scores(layers: Sequence[_Layer], watches: Sequence[Watch]) -> None:
    """Keep the scores of several tiles beside them; that of one tile is the asset's; none where pixels are secret."""
    written = False
    for layer, watch in zip(layers, watches, strict=True):
        if len(watch.scores) > 1 and layer.seal is None:  # they tell of the pixels
            write_scores(layer.path, watch.grid)
            written = True
    for layer in reversed(layers) if written else ():
        layer.close()


def _seal(layers: Sequence[_Layer], key: Key, context: bytes) -> dict[str, str]:
    """Have all layers encrypt under one new data key; fields of the asset."""
    seal = Encrypt.new(key, context)
    for layer in layers:
        layer.seal = seal.within(layer.group)
        layer.sealed = Sealed(seal.key_id, seal.wrapped, context, layer.group)
    return seal.fields()


@dataclass
class _Layer:
    """One lattice of what is written, as a group of its own: the store itself, or one below it."""

    source: Scene
    codec: Codec
    path: Path
    payload: Payload
    bundle: Path
    part: int
    group: str
    bound: ErrorBound | None = None
    coder: ReferenceCoder | None = None
    only: Collection[tuple[int, int]] | None = None
    """Chunks that keep the bound; None for all."""
    seal: Encrypt | None = None
    sealed: Sealed | None = None
    masks: zarr.Array[Any] | None = None
    """The mask's array, once it is written."""

    @cached_property
    def truth(self) -> RawFiles:
        """The same pixels by plain rasterio."""
        s = self.source
        names = [b.name for b in s.bands]
        return RawFiles(
            s.item,
            names,
            s.decoded,
            s.grid,
            self.codec.native_pixels,
            s.resampling,
            s.placed,
            infinite=s.infinite,
        )

    @property
    def spec(self) -> Spec:
        spec = asset_spec(self.codec, self.payload, self.source.decoded, self.bound)
        return spec if self.only is None else replace(spec, residual=BITSTREAM + SPARSE)

    @property
    def where(self) -> Grid:
        """Grid that readers see: pixels for a codec, cells for an embedding."""
        return self.source.grid.cell_grid() if self.spec.kind == "embedding" else self.source.grid

    def bands(self, layers: Sequence[_Layer]) -> dict[str, Any]:
        """Band Objects of these lattices, as seen from this one; nothing where all bands share its grid."""
        objects = []
        for x in layers:
            group = "" if x is self else x.group
            own = [b.to_stac() for b in x.spec.bands]
            objects += band_objects(own, x.source.boxes, self.source.grid, group, x.spec.dimensions)
        return {"bands": objects} if band_places({"bands": objects}) else {}

    def write(
        self, layers: Sequence[_Layer], progress: Progress | None, reference: LatentRef | None
    ) -> tuple[int, dict[Window, Sums]]:
        """Fill the group; its attributes mirror the fields of an asset of these layers.

        Returns
        -------
        pixels, sums
            Valid pixels; checksums of each chunk by its cells.
        """
        source, codec, grid = self.source, self.codec, self.source.grid
        fields = {**self.spec.to_fields(), **grid.to_fields(), **self.bands(layers)}
        fields |= {"latent:part": self.part} if self.part else {}
        fields |= self.seal.fields() if self.seal is not None and not self.part else {}
        arrays = create(self.path, codec, grid, self.payload, 1, fields, self.part, self.seal)
        inner, shard = chunk_cells(codec)
        if reference is not None:
            counts = (-(-grid.cells[0] // inner), -(-grid.cells[1] // inner))
            self.coder = ReferenceCoder(open_key_frame(reference, grid, codec), counts)
        sums: dict[Window, Sums] = {}
        valid_pixels = 0
        shards = list(tiles(grid.cells, shard))
        for i, cells in enumerate(shards):
            (y0, y1), (x0, x1) = cells
            symbols = np.empty((self.spec.dimensions, y1 - y0, x1 - x0), self.spec.data_type)
            for top in range(y0, y1, STRIP * inner):
                strip = Window(Span(top, min(top + STRIP * inner, y1)), cells.x)
                part = symbols[:, strip.y.start - y0 : strip.y.stop - y0]
                every = self.bound is not None
                valid, crcs = encode_strip(source, codec, strip, part, self.coder, every=every)
                arrays = write_mask(arrays, codec, grid, strip, valid)
                valid_pixels += int(valid.any(axis=0).sum())
                sums |= crcs
            arrays.latent[:, y0:y1, x0:x1] = symbols
            del symbols, part, valid
            if progress:
                progress(f"encode {self.group}".strip(), i + 1, len(shards))
        self.masks = arrays.mask
        return valid_pixels, sums

    def close(self) -> None:
        """Gather the metadata; nothing is written afterwards."""
        finish(self.path)
        if self.seal is not None:
            write_manifest(self.path, self.seal)

    def verify(
        self, sums: Mapping[Window, Sums], progress: Progress | None, used: LatentRef | None, watch: Watch
    ) -> Distortion:
        """Decode the group cold and measure it."""
        return verify_store(
            self.truth,
            self.source,
            self.codec,
            self._ref(used),
            self.bundle,
            sums,
            progress,
            self.bound,
            watch,
            self.only,
        )

    def bind(self, progress: Progress | None, used: LatentRef | None) -> None:
        """Add the residuals that keep the bound, if there is one, to a group whose latents are complete."""
        if self.bound is None:
            return
        if self.seal is not None:
            write_manifest(self.path, self.seal)  # the latents are read to see what they lack
        write_residual(
            self.source, self.codec, self._ref(used), self.path, self.bound, progress, self.seal, self.only
        )

    def hold(
        self,
        only: Collection[tuple[int, int]],
        bound: float,
        progress: Progress | None,
        used: LatentRef | None,
    ) -> None:
        """Keep some chunks of a complete group within a bound."""
        n = len(self.codec.bands)
        self.bound, self.only = ErrorBound((bound,) * n, (False,) * n), only
        mark_residual(self.path, self.spec.residual or "")
        self.bind(progress, used)

    def _ref(self, used: LatentRef | None) -> LatentRef:
        return LatentRef(
            "new item", self.path.name, str(self.path), self.spec, self.where, reference=used, sealed=self.sealed, part=self.part
        )  # fmt: skip
