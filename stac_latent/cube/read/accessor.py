"""The xarray accessor ``.stac_latent`` for Datasets and DataArrays that hold latents.

It is called as the package is, so that ``ds.latent`` stays the variable.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from stac_latent.codec.codec import Codec
from stac_latent.cube.asset_choice import band_attrs
from stac_latent.cube.decoder import Decoder
from stac_latent.cube.ref import LatentRef
from stac_latent.errors import CatalogError, CodecError, GridError
from stac_latent.field.storage_type import common_type
from stac_latent.field.validity import apply_nodata
from stac_latent.spec import Band, Grid, Quantization, Spec, Stats

__all__ = ["LatentAccessor"]

Metric = Literal["euclidean", "cosine"]


@xr.register_dataset_accessor("stac_latent")  # type: ignore[no-untyped-call]
@xr.register_dataarray_accessor("stac_latent")  # type: ignore[no-untyped-call]
class LatentAccessor:
    """What a cube of latents is, and what can be done with it in its space.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from stac_latent.cube import LatentAccessor  # its import gives cubes .stac_latent
    >>> spec = Spec("codec", "sha256:" + "0" * 64, 3, (8, 8), (0, 0))
    >>> cube = xr.DataArray(np.zeros((3, 4, 5), "float32"), dims=("channel", "y", "x"), attrs=spec.to_fields())
    >>> cube.stac_latent
    <LatentAccessor codec, 3 channels, 8 x 8 px per cell, 4 x 5 cells>
    space sha256:0000000000...
    """

    def __init__(self, obj: xr.Dataset | xr.DataArray) -> None:
        self._obj = obj

    @property
    def array(self) -> xr.DataArray:
        """The latent variable ``(..., channel, y, x)``.

        Raises
        ------
        CatalogError
            If there is none, or several.
        """
        if isinstance(self._obj, xr.DataArray):
            variables = {str(self._obj.name): self._obj}
        else:
            variables = {str(k): v for k, v in self._obj.data_vars.items()}
        latents = {k: v for k, v in variables.items() if "latent:space" in v.attrs and "channel" in v.dims}
        if len(latents) == 1:
            return next(iter(latents.values()))
        raise CatalogError(
            f"expected one latent variable, with a dimension 'channel' and an attribute 'latent:space'; found "
            f"{', '.join(latents) or 'none'} among {', '.join(variables) or 'no variables'}; load it with upto='latent'"
        )

    @property
    def spec(self) -> Spec:
        """The contract, from the variable's attributes; bands only where they were kept."""
        attrs = self.array.attrs
        plain = {k: v.tolist() if isinstance(v, np.ndarray | np.generic) else v for k, v in attrs.items()}
        lists = ("latent:stride", "latent:halo", "latent:quantization_scale", "latent:quantization_offset")
        fixed = {k: [v] if k in lists and not isinstance(v, list | tuple) else v for k, v in plain.items()}
        return Spec.from_fields({k: v for k, v in fixed.items() if k != "bands"})

    @property
    def space(self) -> str:
        """Digest of the latent space; only latents of one space can be compared."""
        return str(self.array.attrs["latent:space"])

    @property
    def codec(self) -> Codec:
        """Codec of the space: from the decoder link, the installed codecs, or those opened before.

        Of a codec of several lattices, the part for the finest, which is the one that is loaded.

        Raises
        ------
        UnresolvedSpaceError
            If it is not found; the message says where it was looked for.
        """
        attrs = self.array.attrs
        href = attrs.get("latent:decoder")
        decoder = None if href is None else Decoder(str(href), attrs.get("latent:decoder_checksum"))
        nowhere = Grid("EPSG:4326", (1.0, 0.0, 0.0, 0.0, -1.0, 0.0), (1, 1))
        return (
            LatentRef(str(self._obj.attrs.get("id", "cube")), "latent", "", self.spec, nowhere, decoder)
            .open_codec()
            .grid_chains[0]
        )

    @property
    def stats(self) -> Stats:
        """Mean and deviation of each channel over the data that the codec was fitted to.

        Raises
        ------
        CodecError
            If the codec carries none.
        """
        codec = self.codec
        if codec.stats is None:
            raise CodecError(
                f"codec {codec.name!r} carries no statistics of its latents; distances need them: use a fitted codec, or "
                "set dataclasses.replace(codec, stats=Stats(mean, std)) before the bundle is saved"
            )
        return codec.stats

    def standardise(self) -> xr.DataArray:
        """``(latent - mean) / std`` for each channel, float32, same shape; lazy where the cube is.

        Do this before any distance, mean or interpolation: channels differ in scale by orders of magnitude.
        """
        stats, array = self.stats, self.array
        mean = xr.DataArray(np.asarray(stats.mean, "float32"), dims="channel")
        std = np.asarray(stats.std, "float32")
        scale = xr.DataArray(np.where(std > 0, std, np.float32(1)), dims="channel")
        out = ((array - mean) / scale).transpose(*array.dims).astype("float32")
        out.attrs = {**array.attrs, "latent:standardised": 1}
        return out

    def distance(self, other: Any, metric: Metric = "euclidean") -> xr.DataArray:
        """Distance of each cell to the same cell of another cube, in standardised channels.

        Parameters
        ----------
        other
            A Dataset or DataArray of the same space; a single time step is compared with every one here.
        metric
            ``euclidean``: root of the mean square over channels, in deviations. ``cosine``: 0 to 2.

        Raises
        ------
        CatalogError
            If the other cube is of another space; both are named.
        GridError
            If the cells are not the same.
        """
        if metric not in ("euclidean", "cosine"):
            raise CatalogError(f"metric={metric!r} is unknown; expected 'euclidean' or 'cosine'")
        theirs = LatentAccessor(other)
        if theirs.space != self.space:
            raise CatalogError(
                f"distance between two spaces has no meaning: {self.space} and {theirs.space}; encode both with one codec, "
                "or decode them and compare pixels"
            )
        a, b = self.standardise(), theirs.standardise()
        if "time" in b.dims and b.sizes["time"] == 1:
            b = b.squeeze("time", drop=True)
        try:
            a, b = xr.align(a, b, join="exact")
        except ValueError as exc:
            raise GridError(
                f"the cubes do not have the same cells (and times): {exc}; load both with one geobox="
            ) from exc
        if metric == "euclidean":
            return (((a - b) ** 2).mean("channel", skipna=False) ** 0.5).rename("distance")
        dot = (a * b).sum("channel", skipna=False)
        norms = ((a**2).sum("channel", skipna=False) * (b**2).sum("channel", skipna=False)) ** 0.5
        return (1 - dot / norms).rename("distance")

    def decode(self) -> xr.Dataset:
        """Decode the cells to pixels: one variable ``(..., y, x)`` for each band, in its stored unit; loads the cube.

        Bands have the types of the Items'; dates of several types share the smallest that holds them all.

        The pixels are those of whole cells. At the edges of a part of a tile, ``latent:halo`` cells lack the
        neighbours that a load would have used, and only cells without any valid pixel become nodata (0 in integers that
        have none); for pixels as they were stored, load with ``upto="field"``.

        Raises
        ------
        CatalogError
            If the dates of a band have other scales or offsets, so that their stored values mean different things.
        CodecError
            For an embedding.
        GridError
            If the codec needs the whole tile and this is a part of it.
        """
        array, spec = self.array, self.spec
        if spec.kind != "codec":
            raise CodecError(f"latents of kind {spec.kind!r} (space {spec.space}) have no decoder")
        array = array.transpose(..., "channel", *array.odc.spatial_dims)
        whole = list(array.attrs.get("latent:shape", ()))
        if (spec.halo is None or self.codec.tiled) and list(array.shape[-3:]) != whole:
            raise GridError(
                f"this codec decodes whole tiles of {whole} (channel, y, x) only; this cube is {array.shape[-3:]}: load it "
                "without bbox= or geobox="
            )
        codec, values = _as_stated(self.codec, array.attrs), np.asarray(array.data)
        lead, steps = array.shape[:-3], values.reshape(-1, *values.shape[-3:])
        field = np.stack([_decode(codec, spec, step) for step in steps])
        field = field.reshape(*lead, *field.shape[1:])
        cells: GeoBox = array.odc.geobox
        box = cells.zoom_to((cells.shape.y * spec.stride[0], cells.shape.x * spec.stride[1]))
        dims = (*array.dims[:-3], *box.dimensions)
        coords = {d: array[d] for d in array.dims[:-3] if d in array.coords}
        planes = {
            b.name: (dims, field[..., i, :, :].astype(b.data_type, copy=False), band_attrs(b))
            for i, b in enumerate(codec.bands)
        }
        out = xr.Dataset(planes, coords={**coords, **xr_coords(box)})
        for variable in out.data_vars.values():
            variable.encoding["grid_mapping"] = "spatial_ref"
        return out

    def __repr__(self) -> str:
        array, spec = self.array, self.spec
        ny, nx = (array.sizes[d] for d in array.dims[-2:])
        stride = f"{spec.stride[0]} x {spec.stride[1]}"
        return (
            f"<LatentAccessor {spec.kind}, {spec.dimensions} channels, {stride} px per cell, {ny} x {nx} cells>\n"
            f"space {spec.space[:17]}..."
        )


def requantise(q: Quantization, values: npt.NDArray[Any], dtype: str) -> npt.NDArray[Any]:
    """Restore the stored symbols of dequantised values ``(channel, y, x)``; NaN becomes the symbol 0."""
    if q.method == "none":
        return np.asarray(np.nan_to_num(values, nan=0.0), dtype)
    scale, offset = (np.asarray(v, np.float64).reshape(-1, 1, 1) for v in (q.scale, q.offset))
    x = values.astype(np.float64) - offset
    symbols = np.rint(np.sign(x) * np.abs(x) ** (1 / q.power) / scale)
    info = np.iinfo(dtype)
    return np.asarray(np.clip(np.where(np.isnan(values), 0, symbols), info.min, info.max), dtype)


def _as_stated(codec: Codec, attrs: Mapping[str, Any]) -> Codec:
    """The codec for the bands that a cube's Items state; itself where the cube does not say them."""
    stated: dict[str, list[Band]] = {}
    for bands in json.loads(attrs.get("latent:decoded_bands", "[]")):
        for b in map(Band.from_stac, bands):
            stated.setdefault(b.name, []).append(b)
    if not all(b.name in stated for b in codec.bands):
        return codec
    bands = tuple(_joined(stated[b.name]) for b in codec.bands)
    return replace(codec, bands=bands, whole_space=codec.space, untyped=frozenset())


def _joined(bands: Sequence[Band]) -> Band:
    """One band for dates of one: of a type that holds the values of all."""
    first = bands[0]
    if other := next((b for b in bands if (b.scale, b.offset) != (first.scale, first.offset)), None):
        raise CatalogError(
            f"band {first.name!r} has scale {first.scale:g} and offset {first.offset:g} in one item of this cube, {other.scale:g} and "
            f"{other.offset:g} in another: decode their dates apart, or load them with upto='field' and physical=True"
        )
    nodata = next((b.nodata for b in bands if b.nodata is not None), None)
    return replace(first, data_type=common_type(bands).name, nodata=nodata)


def _decode(codec: Codec, spec: Spec, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    field = codec.decode(requantise(spec.quantization, values, spec.data_type), upto="field")
    empty = np.isnan(values).any(axis=0)
    empty = empty.repeat(spec.stride[0], axis=0).repeat(spec.stride[1], axis=1)
    return apply_nodata(np.array(field), ~empty[None], codec.bands)
