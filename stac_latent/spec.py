"""What a reader must know of a latent: its bands, its quantisation, its space and its grid.

Frozen dataclasses that read from and write to the STAC fields one to one. This module knows no STAC client and
no file format: fields are plain dictionaries.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self, get_args

import numpy as np
import numpy.typing as npt

from stac_latent.errors import CatalogError, FieldError, GridError
from stac_latent.geo.crs import crs_fields, crs_from_fields
from stac_latent.window import Window, WindowLike

__all__ = ["DATA_TYPES", "Band", "Grid", "Kind", "Quantization", "Spec", "Stats", "numpy_type", "stac_type"]

Kind = Literal["codec", "embedding"]
Granularity = Literal["pixel", "patch", "chip", "scene"]
Method = Literal["none", "linear", "power", "per_vector", "round"]

_MALFORMED = (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError)
"""What Python raises for fields that are not of their type."""

DATA_TYPES = frozenset(
    (
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "float16",
        "float32",
        "float64",
        "complex64",
        "complex128",
    )
)
"""Types of stored values and of latents, as NumPy names them."""
_STAC_NAMES = {"complex64": "cfloat32", "complex128": "cfloat64"}
_NUMPY_NAMES = {
    "cint16": "complex64",
    "cint32": "complex64",
    "cfloat32": "complex64",
    "cfloat64": "complex128",
}


def stac_type(name: str) -> str:
    """STAC's name of a type that has NumPy's: they differ for complex values."""
    return _STAC_NAMES.get(name, name)


def numpy_type(name: str) -> str:
    """NumPy's name of a type that has STAC's; complex integers are read as pairs of float32."""
    return _NUMPY_NAMES.get(name, name)


@dataclass(frozen=True, slots=True)
class Band:
    """One band of the decoded field, in its stored unit; ``physical = stored * scale + offset``."""

    name: str
    data_type: str = "uint16"
    nodata: float | None = None
    scale: float = 1.0
    offset: float = 0.0
    unit: str | None = None
    gsd: float | None = None
    common_name: str | None = None
    center_wavelength: float | None = None
    full_width_half_max: float | None = None
    """Both in micrometres."""

    def __post_init__(self) -> None:
        if self.data_type not in DATA_TYPES:
            raise CatalogError(
                f"band {str(self.name)[:100]!r} is of type {str(self.data_type)[:100]!r}; expected one of {', '.join(sorted(DATA_TYPES))}"
            )

    @property
    def is_complex(self) -> bool:
        """Whether values have an imaginary part."""
        return self.data_type in _STAC_NAMES

    def peak(self, spread: float) -> float:
        """Peak that the band's PSNR refers to, in its stored unit.

        A band with a scale is a physical quantity whose unit is the peak (reflectance 1.0, hence 10,000 for Sentinel-2);
        any other has the ``spread`` of its values, as is usual for fields without a natural peak.

        Examples
        --------
        >>> Band("red", scale=1e-4).peak(500), Band("dem").peak(815.0)
        (10000.0, 815.0)
        """
        return 1.0 / abs(self.scale) if self.scale != 1 else spread

    def to_stac(self) -> dict[str, Any]:
        """Band Object of STAC 1.1, with the raster 2.0 scale where it is not 1, and the offset where it is not 0."""
        out: dict[str, Any] = {"name": self.name, "data_type": stac_type(self.data_type)}
        if self.nodata is not None:
            out["nodata"] = "nan" if math.isnan(self.nodata) else self.nodata
        if self.unit is not None:
            out["unit"] = self.unit
        if self.gsd is not None:
            out["gsd"] = self.gsd
        eo = {"common_name": self.common_name, "center_wavelength": self.center_wavelength, "full_width_half_max": self.full_width_half_max}  # fmt: skip
        out |= {f"eo:{k}": v for k, v in eo.items() if v is not None}
        if self.scale != 1.0:
            out["raster:scale"] = self.scale
        if self.offset != 0.0:
            out["raster:offset"] = self.offset
        return out

    @classmethod
    def from_stac(cls, band: Mapping[str, Any]) -> Self:
        """Inverse of :meth:`to_stac`."""
        nodata = band.get("nodata")
        return cls(
            name=str(band["name"]),
            data_type=numpy_type(str(band.get("data_type", "uint16"))),
            nodata=None if nodata is None else float(nodata),
            scale=float(band.get("raster:scale", 1.0)),
            offset=float(band.get("raster:offset", 0.0)),
            unit=band.get("unit"),
            gsd=band.get("gsd"),
            common_name=band.get("eo:common_name"),
            center_wavelength=band.get("eo:center_wavelength"),
            full_width_half_max=band.get("eo:full_width_half_max"),
        )


@dataclass(frozen=True, slots=True)
class Stats:
    """Mean and standard deviation of each dequantised latent channel: how to standardise before comparing."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def standardise(self, latent: npt.NDArray[np.floating[Any]], axis: int = 0) -> npt.NDArray[np.float32]:
        """``(latent - mean) / std`` along the channel axis; float32, same shape.

        Channels whose training deviation is zero are only centred.
        """
        shape = [1] * latent.ndim
        shape[axis] = len(self.mean)
        mean = np.asarray(self.mean, np.float32).reshape(shape)
        std = np.asarray(self.std, np.float32).reshape(shape)
        return np.asarray((latent - mean) / np.where(std > 0, std, 1), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Quantization:
    """How stored integers become numbers: ``value = sign(q) * (abs(q) * scale) ** power + offset``.

    ``scale`` and ``offset`` hold one value, or one for each channel.

    Examples
    --------
    >>> q = Quantization("power", scale=(1 / 127.5,), power=2.0)  # AlphaEarth
    >>> [round(float(v), 4) for v in q.dequantise(np.array([-127, 0, 64], np.int8))]
    [-0.9922, 0.0, 0.252]
    """

    method: Method = "none"
    scale: tuple[float, ...] = (1.0,)
    offset: tuple[float, ...] = (0.0,)
    power: float = 1.0

    def dequantise(self, q: npt.NDArray[Any], axis: int = 0) -> npt.NDArray[np.float32]:
        """Real values (float32) of stored symbols; ``axis`` is the channel axis.

        Raises
        ------
        FieldError
            If the symbols are complex values.
        """
        if q.dtype.kind == "c":
            raise FieldError(
                f"the symbols are complex values ({q.dtype}), which no latents of real numbers stand for: decode them to pixels "
                "(upto='field')"
            )
        if self.method == "none":
            return np.asarray(q, dtype=np.float32)

        def along(values: tuple[float, ...]) -> npt.NDArray[np.float32]:
            arr = np.asarray(values, np.float32)
            if arr.size == 1:
                return arr.reshape(())
            shape = [1] * q.ndim
            shape[axis] = arr.size
            return arr.reshape(shape)

        x = np.asarray(q, dtype=np.float32) * along(self.scale)
        if self.power != 1.0:
            x = np.sign(x) * np.abs(x) ** np.float32(self.power)
        return np.asarray(x + along(self.offset), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Spec:
    """The decode contract of one latent asset, without its place: space, cells, quantisation, bands."""

    kind: Kind
    space: str
    """Digest of chain, weights and normalisation: ``sha256:`` and 64 hexadecimal digits."""
    dimensions: int
    """Channels per cell."""
    stride: tuple[int, int]
    """Source pixels per cell (y, x)."""
    halo: tuple[int, int] | None
    """Cells beyond the stored chunks of a window that a decoder needs (y, x); None: all of the tensor."""
    bands: tuple[Band, ...] = ()
    """Bands of the decoded field; for an embedding, those that it was computed from."""
    data_type: str = "int16"
    """Type of the stored symbols."""
    dtype: str = "float32"
    """Type after dequantising."""
    quantization: Quantization = field(default_factory=Quantization)
    granularity: Granularity = "patch"
    bitstream: str | None = None
    """Identifier of the entropy-coded container; None where the symbols are stored plainly."""
    residual: str | None = None
    """Identifier of the residuals that keep an error bound; None where there are none."""
    determinism: Literal["exact", "platform"] = "exact"
    scale_asset: str | None = None
    """Key of the asset with the scales, for ``per_vector``."""

    def to_fields(self) -> dict[str, Any]:
        """The ``latent:`` fields, ``data_type`` and ``bands`` of an asset; absent values are left out."""
        q = self.quantization
        out: dict[str, Any] = {
            "latent:kind": self.kind,
            "latent:space": self.space,
            "latent:granularity": self.granularity,
            "latent:dimensions": self.dimensions,
            "latent:dtype": stac_type(self.dtype),
            "latent:quantization": q.method,
            "latent:stride": list(self.stride),
            "data_type": stac_type(self.data_type),
        }
        if self.halo is not None:
            out["latent:halo"] = list(self.halo)
        if q.method not in ("none", "round"):
            out["latent:quantization_scale"] = list(q.scale)
            out["latent:quantization_offset"] = list(q.offset)
        if q.method == "power":
            out["latent:quantization_power"] = q.power
        for name in ("bitstream", "residual", "scale_asset"):
            if getattr(self, name) is not None:
                out[f"latent:{name}"] = getattr(self, name)
        if self.kind == "codec" or self.determinism == "platform":
            out["latent:determinism"] = self.determinism
        if self.bands:
            out["bands"] = [b.to_stac() for b in self.bands]
        return out

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        """Read the contract from an asset's fields; nulls count as absent.

        Raises
        ------
        CatalogError
            If a field that every latent asset needs is missing; the message names all of them.
        """
        f = {k: v for k, v in fields.items() if v is not None}
        needed = ("latent:kind", "latent:space", "latent:dimensions", "latent:quantization")
        if missing := [k for k in needed if k not in f]:
            raise CatalogError(
                f"not a latent asset: {', '.join(missing)} missing (has: {sorted(f) or 'no fields'}); "
                "an asset with role 'latent' needs the required fields of the latent extension"
            )
        if f["latent:quantization"] not in get_args(Method):
            raise CatalogError(
                f"latent:quantization is {f['latent:quantization']!r:.60}, which this version does not read; expected one of "
                f"{', '.join(get_args(Method))}: upgrade stac-latent (pip install -U stac-latent), or correct the field"
            )
        try:
            return cls._read(f)
        except _MALFORMED as exc:
            raise CatalogError(
                f"not a latent asset: a field is not as the latent extension has it: {type(exc).__name__}: {exc}"
            ) from exc

    @classmethod
    def _read(cls, f: Mapping[str, Any]) -> Self:
        stride = f.get("latent:stride", (1, 1))
        halo = f.get("latent:halo")
        stored = numpy_type(str(f.get("data_type", "int16")))
        dtype = numpy_type(str(f.get("latent:dtype", "float32")))
        if f["latent:kind"] not in ("codec", "embedding") or not {stored, dtype} <= DATA_TYPES:
            raise ValueError(f"latent:kind {f['latent:kind']!r:.100}, types {stored}, {dtype:.100}")
        return cls(
            kind=f["latent:kind"],
            space=str(f["latent:space"]),
            dimensions=int(f["latent:dimensions"]),
            stride=(int(stride[0]), int(stride[1])),
            halo=None if halo is None else (int(halo[0]), int(halo[1])),
            bands=tuple(Band.from_stac(b) for b in f.get("bands", ())),
            data_type=stored,
            dtype=dtype,
            quantization=Quantization(
                method=f["latent:quantization"],
                scale=tuple(float(v) for v in f.get("latent:quantization_scale", (1.0,))),
                offset=tuple(float(v) for v in f.get("latent:quantization_offset", (0.0,))),
                power=float(f.get("latent:quantization_power", 1.0)),
            ),
            granularity=f.get("latent:granularity", "patch"),
            bitstream=f.get("latent:bitstream"),
            residual=f.get("latent:residual"),
            determinism=f.get("latent:determinism", "exact"),
            scale_asset=f.get("latent:scale_asset"),
        )


@dataclass(frozen=True, slots=True)
class Grid:
    """Where a latent lies: the pixel grid it decodes to, and the lattice of cells above it.

    The cell grid covers the pixel grid and ``padding`` more pixels at its edges, so that cells of neighbouring
    scenes in one CRS share one lattice. ``transform`` is that of the pixels (row-major, six numbers, as
    ``proj:transform``).
    """

    crs: str
    """Authority and code, or WKT2; see :mod:`stac_latent.geo.crs`."""
    transform: tuple[float, float, float, float, float, float]
    shape: tuple[int, int]
    """Pixels (y, x)."""
    stride: tuple[int, int] = (1, 1)
    """Pixels per cell (y, x)."""
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Pixels to crop after decoding: top, bottom, left, right."""

    def __post_init__(self) -> None:
        top, bottom, left, right = self.padding
        if min(*self.shape, *self.stride) < 1 or max(*self.shape, *self.padding, *self.stride) >= 2**31:
            raise GridError(
                f"{self.shape} pixels in cells of {self.stride} with padding {self.padding} are no grid: expected 1 to 2**31 pixels"
            )
        if (
            not all(map(math.isfinite, self.transform))
            or not self.transform[0] * self.transform[4] - self.transform[1] * self.transform[3]
        ):
            raise GridError(
                f"transform {self.transform} maps no pixels to the CRS: expected six numbers, as proj:transform has them"
            )
        padded = (self.shape[0] + top + bottom, self.shape[1] + left + right)
        if min(self.padding) < 0 or any(n % s for n, s in zip(padded, self.stride, strict=True)):
            raise GridError(
                f"pixels {self.shape} with padding {self.padding} are not whole cells of {self.stride} pixels; "
                "padding is (top, bottom, left, right) and completes the last cells"
            )

    @property
    def cells(self) -> tuple[int, int]:
        """Number of cells (y, x)."""
        top, bottom, left, right = self.padding
        return (
            (self.shape[0] + top + bottom) // self.stride[0],
            (self.shape[1] + left + right) // self.stride[1],
        )

    @property
    def lead(self) -> tuple[int, int]:
        """Padding before the first pixel: (top, left)."""
        return self.padding[0], self.padding[2]

    @property
    def cell_transform(self) -> tuple[float, float, float, float, float, float]:
        """Affine of the cell lattice, same order as ``transform``."""
        a, b, c, d, e, f = self.transform
        top, left = self.lead
        sy, sx = self.stride
        return (a * sx, b * sy, c - a * left - b * top, d * sx, e * sy, f - d * left - e * top)

    def cells_of(self, window: WindowLike, halo: tuple[int, int] = (0, 0)) -> Window:
        """Cells that cover a pixel window, ``halo`` more on each side where the grid has them."""
        return Window.of(
            (max(0, (lo + pad) // s - h), min(n, -(-(hi + pad) // s) + h))
            for (lo, hi), s, pad, n, h in zip(window, self.stride, self.lead, self.cells, halo, strict=True)
        )

    def to_fields(self) -> dict[str, Any]:
        """The ``proj:`` fields and the ``latent:`` padding of an asset that decodes to this grid."""
        return {
            **crs_fields(self.crs),
            "proj:shape": list(self.shape),
            "proj:transform": list(self.transform),
            "latent:stride": list(self.stride),
            "latent:padding": list(self.padding),
        }

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any], inherited: Mapping[str, Any] | None = None) -> Self:
        """Inverse of :meth:`to_fields`; ``inherited`` has CRS, shape or transform where ``fields`` has none.

        Raises
        ------
        GridError
            If the CRS (``proj:code``, ``proj:wkt2`` or ``proj:projjson``), ``proj:shape`` or ``proj:transform`` is missing.
        """
        outer = inherited or {}
        f: dict[str, Any] = {name: outer.get(name) for name in ("proj:shape", "proj:transform")}
        f |= {k: v for k, v in fields.items() if v is not None}
        f["proj:code"] = crs_from_fields(fields, outer)
        if missing := [k for k in ("proj:code", "proj:shape", "proj:transform") if f.get(k) is None]:
            raise GridError(
                f"the asset has no grid: {', '.join(missing)} missing; a latent asset needs proj:code (or proj:wkt2), "
                "proj:shape and proj:transform of the pixels (codec) or cells (embedding) that a load returns"
            )
        shape, stride = f["proj:shape"], f.get("latent:stride", (1, 1))
        if f.get("latent:kind") == "embedding":
            stride = (1, 1)
        padding: Sequence[int] = f.get("latent:padding", (0, 0, 0, 0))
        try:
            a, b, c, d, e, g = (float(v) for v in f["proj:transform"][:6])
            return cls(
                crs=f["proj:code"],
                transform=(a, b, c, d, e, g),
                shape=(int(shape[0]), int(shape[1])),
                stride=(int(stride[0]), int(stride[1])),
                padding=(int(padding[0]), int(padding[1]), int(padding[2]), int(padding[3])),
            )
        except _MALFORMED as exc:
            if isinstance(exc, GridError):
                raise
            raise GridError(
                f"the asset has no grid: proj:shape {shape}, proj:transform, latent:stride {stride} or latent:padding {padding} "
                f"is not as the extensions have it: {exc}"
            ) from exc

    def cell_grid(self) -> Grid:
        """The lattice itself as a grid of stride one."""
        return replace(
            self, transform=self.cell_transform, shape=self.cells, stride=(1, 1), padding=(0, 0, 0, 0)
        )
