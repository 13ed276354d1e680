"""Encode one source into one latent store, shard by shard in bounded memory, and verify it by a cold decode."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from stac_latent.codec.codec import Codec
from stac_latent.cube.band_grid import band_grids
from stac_latent.cube.grid.tiling import tiles
from stac_latent.cube.keyframe.decode import open_key_frame
from stac_latent.cube.keyframe.encode import ReferenceCoder, relative_href
from stac_latent.cube.raw.contract import Trust
from stac_latent.cube.raw.files import RawFiles
from stac_latent.cube.read.band_views import band_objects, group_names
from stac_latent.cube.ref import LatentRef
from stac_latent.cube.write.monitor import QualityMonitor, QualityPolicy, findings, refusals
from stac_latent.cube.write.residual import write_residual
from stac_latent.cube.write.strip import encode_strip, write_mask
from stac_latent.cube.write.verify import (
    STRIP,
    Progress,
    Source,
    Sums,
    WrittenGrid,
    measurements,
    verify_store,
)
from stac_latent.errors import FieldError, GuardError
from stac_latent.extension.features import group_features
from stac_latent.field.error_bound import ErrorBound
from stac_latent.quality.distortion import Distortion
from stac_latent.secure import Encrypt, EncryptedAsset, Key, context_of
from stac_latent.spec import Band, Grid, Spec
from stac_latent.stages.residual.payload import BITSTREAM
from stac_latent.store.consolidate import finish
from stac_latent.store.georeference import embedding_attributes, group_place
from stac_latent.store.prefixes import PREFIX, fill_prefixes
from stac_latent.store.zarr.chips import AnyArray
from stac_latent.store.zarr.encrypted_store import write_manifest
from stac_latent.store.zarr.group import ChunkSizes, GroupOptions, Payload, StoreLayout, create, open_arrays
from stac_latent.store.zarr.known_metadata import layout_fields
from stac_latent.store.zarr.ood_scores import write_scores
from stac_latent.store.zarr.precoded import Precoded
from stac_latent.store.zarr.residual import SPARSE, mark_residual
from stac_latent.system.files import tree_size
from stac_latent.window import Span, Window

if TYPE_CHECKING:
    import pystac
    from odc.geo.geobox import GeoBox

    from stac_latent.cube.raw.source import SourceBand

__all__ = ["Encoded", "Scene", "WriteJob", "asset_spec", "write"]


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
    key_frame: LatentRef | None = None
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
    notes: tuple[str, ...]
    """Where Item and file disagreed, in words."""


@dataclass(frozen=True)
class WriteJob:
    """One latent store to be written: pixels, codecs, and what the store has to keep.

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
    key_frame
        Of the same cells and space: chunks are coded against it where that takes fewer bytes; of one lattice.
    bound
        Kept in every valid pixel of the bands of all sources, by residuals of what the stored latents decode to.
    quality
        Guard and checks.
    key
        Encrypts the chunks, under a data key of their own.
    layout
        How stores are cut.
    small
        Chunks are no larger than the grid, so that the store can be gathered with others.
    """

    sources: Sequence[Scene]
    coders: Sequence[Codec]
    path: Path
    payload: Payload
    bundle: Path
    key_frame: LatentRef | None = None
    bound: ErrorBound | None = None
    quality: QualityPolicy = field(default_factory=QualityPolicy)
    key: Key | None = None
    layout: StoreLayout = field(default_factory=StoreLayout)
    small: bool = False


def write(job: WriteJob, progress: Progress | None = None) -> Encoded:
    """Write a latent group and verify it.

    Parameters
    ----------
    job
        What to write, and where.
    progress
        Called after each shard.

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
    layers = _layers(job)
    first = layers[0]
    spec = replace(first.spec, bands=tuple(b for x in layers for b in x.spec.bands))
    native = first.bands(layers)
    encryption = {}
    if job.key is not None:
        encryption = _encrypt(layers, job.key, context_of(spec, first.where, band_grids(native)))
    valid_pixels = sum(x.write(layers if x is first else [x], progress, job.key_frame) for x in layers)
    if not valid_pixels:
        raise FieldError("no pixel of the source is valid: every one is nodata; there is nothing to encode")
    coder = first.coder
    if job.key_frame is not None and coder is not None:
        if not coder.pays:
            shutil.rmtree(job.path)
            return write(replace(job, key_frame=None), progress)
        coder.write(job.path)
        for layer in layers:
            layer.key_frame = job.key_frame
    for layer in reversed(layers):
        layer.write_residual(progress)
        layer.close()
    verdict = _verified(layers, job, progress)
    _write_scores(layers, verdict.monitors)
    for layer in layers:
        layer.write_prefixes()
    size = tree_size(job.path)
    fields = {
        "latent:bits_per_pixel": size * 8 / sum(s.samples for s in job.sources),
        **(layout_fields(job.path, first.masks, first.encryption) if len(layers) == 1 else {}),
        **measurements(verdict.distortion),
        **({} if job.bound is None else job.bound.to_fields(verdict.distortion.magnitudes)),
        **verdict.fields,
        **native,
        **encryption,
        **_origin(layers),
    }
    spec = replace(spec, residual=first.spec.residual)
    return Encoded(spec, first.where, size, fields, first.key_frame, tuple(verdict.unusual))


def _layers(job: WriteJob) -> list[_Layer]:
    """One for each lattice, nothing of it written yet."""
    names = group_names([s.boxes for s in job.sources])
    counts = [len(c.bands) for c in job.coders]
    bounds = [None] * len(counts) if job.bound is None else job.bound.split(counts)
    rows = enumerate(zip(job.sources, job.coders, names, bounds, strict=True))
    return [
        _Layer(
            source,
            coder,
            job.path / name,
            job.payload,
            job.bundle,
            i,
            name,
            _sizes(job, coder, source.grid.cells),
            bound,
        )
        for i, (source, coder, name, bound) in rows
    ]


def _sizes(job: WriteJob, coder: Codec, cells: tuple[int, int]) -> ChunkSizes:
    """How the store of a lattice of so many cells is cut."""
    sizes = job.layout.sizes(coder, cells)
    return sizes.within(cells) if job.small else sizes


class _Verdict(NamedTuple):
    """What a cold decode of all lattices measured, and what follows from it."""

    distortion: Distortion
    monitors: Sequence[QualityMonitor]
    fields: dict[str, Any]
    """Of the asset: score, checks, and the tiles that were kept within the fallback's bound."""
    unusual: Sequence[str]


def _verified(layers: Sequence[_Layer], job: WriteJob, progress: Progress | None) -> _Verdict:
    """Decode all lattices cold and judge them; under ``fallback``, bound flagged tiles and decode again.

    Raises
    ------
    GuardError
        If the policy or a check refuses them.
    """
    quality = job.quality
    monitors = quality.monitors(job.coders)
    distortion = _measured(layers, monitors, progress)
    fallback_fields: dict[str, Any] = {}
    if quality.policy == "fallback" and (count := sum(len(m.flagged) for m in monitors)):
        fallback_fields = {"latent:fallback_tiles": count, "latent:fallback_bound": quality.bound}
        for layer, monitor in zip(reversed(layers), reversed(monitors), strict=True):
            layer.write_fallback_tiles(monitor.flagged, quality.bound, progress)
            layer.close()
        checks = quality.monitors(job.coders, judge=False)
        distortion = _measured(layers, checks, progress)
        monitors = [replace(m, checks=c.checks) for m, c in zip(monitors, checks, strict=True)]
    fields = findings(monitors) | fallback_fields
    unusual, is_refused = refusals(monitors, fields, quality.policy)
    if is_refused:
        raise GuardError("; ".join(unusual))
    return _Verdict(distortion, monitors, fields, unusual)


def _measured(
    layers: Sequence[_Layer], monitors: Sequence[QualityMonitor], progress: Progress | None
) -> Distortion:
    """What a cold decode of all lattices measures."""
    pairs = zip(layers, monitors, strict=True)
    return Distortion.merged([layer.verify(monitor, progress) for layer, monitor in pairs])


def _origin(layers: Sequence[_Layer]) -> dict[str, Any]:
    """What a later verification has to know to read the same pixels again."""
    out: dict[str, Any] = {"latent:source_bands": [b.name for x in layers for b in x.source.bands]}
    if any(x.truth.assembled for x in layers):
        out["latent:source_resampling"] = layers[0].source.resampling
    return out


def _write_scores(layers: Sequence[_Layer], monitors: Sequence[QualityMonitor]) -> None:
    """Keep the scores of several tiles beside them; that of one tile is the asset's; none where pixels are secret."""
    changed = False
    for layer, monitor in zip(layers, monitors, strict=True):
        if len(monitor.scores) > 1 and layer.encryption is None:  # they tell of the pixels
            write_scores(layer.path, monitor.grid)
            changed = True
    for layer in reversed(layers) if changed else ():
        layer.close()


def _encrypt(layers: Sequence[_Layer], key: Key, context: bytes) -> dict[str, str]:
    """Have all layers encrypt under one new data key; fields of the asset."""
    encryption = Encrypt.new(key, context)
    for layer in layers:
        layer.encryption = encryption.within(layer.group)
        layer.sealed = EncryptedAsset(encryption.key_id, encryption.wrapped, context, layer.group)
    return encryption.fields()


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
    sizes: ChunkSizes
    bound: ErrorBound | None = None
    coder: ReferenceCoder | None = None
    key_frame: LatentRef | None = None
    """What its chunks were coded against, once any of them was."""
    only: Collection[tuple[int, int]] | None = None
    """Chunks that keep the bound; None for all."""
    encryption: Encrypt | None = None
    sealed: EncryptedAsset | None = None
    masks: AnyArray | None = None
    """The mask's array, once it is written."""
    sums: dict[Window, Sums] = field(default_factory=dict)
    """Checksums of each chunk that was written, by its cells."""

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
        return {"bands": objects} if band_grids({"bands": objects}) else {}

    def write(self, layers: Sequence[_Layer], progress: Progress | None, key_frame: LatentRef | None) -> int:
        """Fill the group, whose attributes mirror the fields of an asset of these layers; the number of valid pixels."""
        source, codec, grid = self.source, self.codec, self.source.grid
        fields = {**self.where.to_fields(), **self.spec.to_fields(), **self.bands(layers)}
        if self.spec.kind == "embedding":
            fields.pop("latent:padding")
            model = relative_href(str(self.bundle / "item.json"), self.path)
            item = source.item
            fields |= embedding_attributes(self.spec, model, item.collection_id or item.id)
        fields |= {"latent:part": self.part} if self.part else {}
        sealed = {} if self.encryption is None else self.encryption.fields()
        fields |= {} if self.part else sealed
        reference = None if key_frame is None else relative_href(key_frame.href, self.path)
        fields |= {} if reference is None else {"latent:reference_store": reference}
        inner, shard, _ = self.sizes
        precoded = Precoded(codec) if self.payload == "coded" else None
        options = GroupOptions(
            self.payload,
            part=self.part,
            reference=reference,
            encryption=self.encryption,
            encoder=precoded,
            sizes=self.sizes,
        )
        attributes = group_place(group_features(fields, sealed))
        arrays = create(self.path, codec, grid, attributes, options)
        if key_frame is not None:
            counts = (-(-grid.cells[0] // inner[0]), -(-grid.cells[1] // inner[1]))
            frame = open_key_frame(key_frame, grid, codec)
            frame.check_chunks(inner)
            self.coder = ReferenceCoder(frame, counts)
        valid_pixels = 0
        shards = list(tiles(grid.cells, shard))
        for i, cells in enumerate(shards):
            (y0, y1), (x0, x1) = cells
            symbols = np.empty((self.spec.dimensions, y1 - y0, x1 - x0), self.spec.data_type)
            for top in range(y0, y1, STRIP * inner[0]):
                strip = Window(Span(top, min(top + STRIP * inner[0], y1)), cells.x)
                rows = symbols[:, strip.y.start - y0 : strip.y.stop - y0]
                valid, sums = encode_strip(
                    source,
                    codec,
                    strip,
                    rows,
                    self.sizes,
                    precoded,
                    self.coder,
                    defer_uncodable=self.bound is not None,
                )
                arrays = write_mask(arrays, codec, grid, strip, valid)
                valid_pixels += int(valid.any(axis=0).sum())
                self.sums |= sums
            arrays.latent[:, y0:y1, x0:x1] = symbols
            del symbols, rows, valid
            if progress:
                progress(f"encode {self.group}".strip(), i + 1, len(shards))
        self.masks = arrays.mask
        return valid_pixels

    def close(self) -> None:
        """Gather the metadata; nothing is written afterwards."""
        finish(self.path)
        if self.encryption is not None:
            write_manifest(self.path, self.encryption)

    def verify(self, monitor: QualityMonitor, progress: Progress | None) -> Distortion:
        """Decode the group cold and measure it."""
        written = WrittenGrid(
            self.truth,
            self.source,
            self.codec,
            self._ref(),
            self.bundle,
            self.sums,
            self.sizes,
            self.bound,
            self.only,
        )
        return verify_store(written, monitor, progress)

    def write_residual(self, progress: Progress | None) -> None:
        """Add the residuals that keep the bound, if there is one, to a group whose latents are complete."""
        if self.bound is None:
            return
        if self.encryption is not None:
            write_manifest(self.path, self.encryption)  # the latents are read to see what they lack
        write_residual(
            self.source, self.codec, self._ref(), self.path, self.bound, progress, self.encryption, self.only
        )

    def write_prefixes(self) -> None:
        """Say what coarser pixels need of each chunk, where the group has room for it and pixels need no residuals."""
        if not (self.path / PREFIX).is_dir() or self.bound is not None:
            return
        arrays = open_arrays(str(self.path))
        payloads: Any = arrays.payloads
        counts = arrays.prefixes.counts
        fill_prefixes(self.path, counts, payloads.read, self.codec.prefixes)

    def write_fallback_tiles(
        self, flagged: Collection[tuple[int, int]], bound: float, progress: Progress | None
    ) -> None:
        """Keep some chunks of a complete group within a bound; 0 is lossless."""
        n = len(self.codec.bands)
        self.bound, self.only = ErrorBound((bound,) * n, (False,) * n), flagged
        mark_residual(self.path, self.spec.residual or "")
        self.write_residual(progress)

    def _ref(self) -> LatentRef:
        return LatentRef(
            "new item", self.path.name, str(self.path), self.spec, self.where, reference=self.key_frame, sealed=self.sealed,
            part=self.part,
        )  # fmt: skip
