"""The ``latent:`` STAC extension for pystac: typed fields, summaries, links and hooks.

It imports pystac only, because pystac imports it (entry point ``pystac.extensions``) when it first reads a document.

Absent fields and nulls (which come back from stac-geoparquet) both read as None; setting None removes a field.
An asset does not inherit the measurements of its Item: they may belong to another asset.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, overload

import pystac
from pystac.extensions.base import ExtensionManagementMixin, PropertiesExtension, SummariesExtension
from pystac.extensions.hooks import ExtensionHooks

from stac_latent.errors import CatalogError
from stac_latent.extension._fields import (
    KIND,
    METHOD,
    PREFIX,
    Field,
    integer,
    list_of,
    number,
    one_of,
    optional,
    text,
)

if TYPE_CHECKING:
    from stac_latent.spec import Granularity, Kind, Method

__all__ = [
    "DECODER_REL",
    "ENCODER_REL",
    "LATENT_EXTENSION_HOOKS",
    "PREFIX",
    "ROLE",
    "ROLE_MASK",
    "ROLE_SCALES",
    "SCHEMA_URI",
    "VERSION",
    "AssetLatentExtension",
    "ExtensionNotDeclaredError",
    "ItemAssetLatentExtension",
    "ItemLatentExtension",
    "LatentExtension",
    "LatentExtensionHooks",
    "LinkLatentExtension",
    "SummariesLatentExtension",
    "check_version",
]

VERSION = "0.1.0"
SCHEMA_URI = f"https://stac-latent.github.io/latent/v{VERSION}/schema.json"
DECODER_REL = "latent:decoder"
ENCODER_REL = "latent:encoder"
ROLE = "latent"
ROLE_MASK = "latent:mask"
ROLE_SCALES = "latent:scales"

_ANY_VERSION = re.compile(r"^https://stac-latent\.github\.io/latent/v([^/]*)/schema\.json#?$")
_NUMBER = re.compile(r"^(\d+)\.(\d+)\.(\d+)$")


class ExtensionNotDeclaredError(CatalogError, pystac.ExtensionNotImplemented):
    """The object does not list the extension in ``stac_extensions``; pystac users may catch pystac's own class."""


def check_version(obj: pystac.STACObject | Mapping[str, Any]) -> str | None:
    """Refuse an object that declares a newer version of the extension than this package knows.

    Parameters
    ----------
    obj
        A pystac object, or a STAC document as a dictionary.

    Returns
    -------
    str or None
        The declared version, such as ``"0.1.0"``; None where the extension is not declared.

    Raises
    ------
    CatalogError
        If the declared version is newer than :data:`VERSION`, or is no version.

    Examples
    --------
    >>> check_version({"id": "a", "stac_extensions": [SCHEMA_URI]})
    '0.1.0'
    """
    if isinstance(obj, Mapping):
        declared, name = obj.get("stac_extensions") or [], obj.get("id")
    else:
        declared, name = obj.stac_extensions or [], obj.id
    versions = [found[1] for uri in declared if (found := _ANY_VERSION.match(str(uri)))]
    if not versions or VERSION in versions:
        return VERSION if versions else None
    for version in versions:
        number = _NUMBER.match(version)
        if number is None:
            raise CatalogError(
                f"{name!r} declares version {version!r} of the latent extension, which is no version; "
                f"expected three numbers as in {SCHEMA_URI}"
            )
        if tuple(map(int, number.groups())) > tuple(map(int, VERSION.split("."))):
            raise CatalogError(
                f"{name!r} declares version {version} of the latent extension, expected at most {VERSION}: "
                "its fields may mean something else by now; upgrade stac-latent (pip install -U stac-latent)"
            )
    return versions[0]


class LatentExtension(PropertiesExtension, ExtensionManagementMixin[pystac.Item | pystac.Collection]):
    """Entry to the fields of the latent extension: :meth:`ext` and :meth:`summaries`.

    Examples
    --------
    >>> from datetime import UTC, datetime
    >>> item = pystac.Item("scene", None, None, datetime(2026, 1, 1, tzinfo=UTC), {})
    >>> LatentExtension.ext(item, add_if_missing=True).apply(kinds=["codec"]).fields()
    {'latent:kinds': ['codec']}
    """

    name: Literal["latent"] = "latent"
    _fields: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, properties: dict[str, Any]) -> None:
        self.properties = properties

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._fields = frozenset(
            k for base in cls.__mro__ for k, v in vars(base).items() if isinstance(v, Field)
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.fields()})"

    @classmethod
    def get_schema_uri(cls) -> str:
        """Address of the extension's JSON schema."""
        return SCHEMA_URI

    @overload
    @classmethod
    def ext(cls, obj: pystac.Item, add_if_missing: bool = False) -> ItemLatentExtension: ...
    @overload
    @classmethod
    def ext(cls, obj: pystac.Asset, add_if_missing: bool = False) -> AssetLatentExtension: ...
    @overload
    @classmethod
    def ext(
        cls, obj: pystac.ItemAssetDefinition, add_if_missing: bool = False
    ) -> ItemAssetLatentExtension: ...
    @overload
    @classmethod
    def ext(cls, obj: pystac.Link, add_if_missing: bool = False) -> LinkLatentExtension: ...
    @classmethod
    def ext(cls, obj: Any, add_if_missing: bool = False) -> LatentExtension:
        """Typed access to the ``latent:`` fields of an Item, Asset, ItemAssetDefinition or Link.

        Parameters
        ----------
        obj
            The object; its fields are read and written in place.
        add_if_missing
            Add the extension to ``stac_extensions`` of the owner.

        Raises
        ------
        CatalogError
            If the extension is not declared (:class:`ExtensionNotDeclaredError`), is declared in a newer version,
            or is to be added and there is no owner.
        pystac.ExtensionTypeError
            If the extension has no fields for that type of object.
        """
        if isinstance(obj, pystac.Item):
            cls._declare(obj, obj, add_if_missing)
            return ItemLatentExtension(obj.properties)
        if isinstance(obj, pystac.ItemAssetDefinition):
            cls._declare(obj, obj.owner, add_if_missing)
            return ItemAssetLatentExtension(obj.properties)
        if isinstance(obj, (pystac.Asset, pystac.Link)):
            cls._declare(obj, obj.owner, add_if_missing)
            found = AssetLatentExtension if isinstance(obj, pystac.Asset) else LinkLatentExtension
            return found(obj.extra_fields)
        raise pystac.ExtensionTypeError(cls._ext_error_message(obj))

    @classmethod
    def summaries(cls, obj: pystac.Collection, add_if_missing: bool = False) -> SummariesLatentExtension:
        """Typed access to the ``latent:`` summaries of a Collection; raises as :meth:`ext` does."""
        cls._declare(obj, obj, add_if_missing)
        return SummariesLatentExtension(obj)

    @classmethod
    def _declare(cls, obj: Any, owner: Any, add_if_missing: bool) -> None:
        if owner is None:
            if add_if_missing:
                raise CatalogError(
                    f"{type(obj).__name__} has no owner to add the latent extension to; "
                    "add it to its Item or Collection first, or leave add_if_missing out"
                )
            return
        check_version(owner)
        if add_if_missing:
            cls.add_to(owner)
        elif not cls.has_extension(owner):
            raise ExtensionNotDeclaredError(
                f"{owner.id!r} does not declare the latent extension (has: {owner.stac_extensions or 'none'}); "
                f"expected {SCHEMA_URI} in stac_extensions, or add_if_missing=True to add it"
            )

    def apply(self, **fields: Any) -> Self:
        """Set several fields by name, without prefix; None removes one, and fields not named stay.

        Raises
        ------
        CatalogError
            If there is no such field here, or a value does not fit.
        """
        if unknown := sorted(set(fields) - self._fields):
            raise CatalogError(
                f"no such field here: {', '.join(unknown)}; expected {', '.join(sorted(self._fields))}"
            )
        for name, value in fields.items():
            setattr(self, name, value)
        return self

    def fields(self) -> dict[str, Any]:
        """Return the ``latent:`` fields that are present, as they are stored; nulls are left out."""
        return {k: v for k, v in self.properties.items() if k.startswith(PREFIX) and v is not None}


class _Measured(LatentExtension):
    """What a cold decode of the stored bytes measured; errors are in the stored unit of the decoded bands."""

    bits_per_pixel = Field(number, "bits per pixel and band, of all stored bytes")
    psnr = Field(
        number, "peak signal-to-noise ratio in dB, at most 200; may be left out where decoding is lossless"
    )
    max_error = Field(number, "largest absolute error; 0 where decoding is lossless")
    sam = Field(number, "mean spectral angle in degrees")
    error_bound = Field(number, "guaranteed largest absolute error")
    ood_score = Field(number, "how far the source is from what the codec was trained on")


class ItemLatentExtension(_Measured):
    """Fields of Item properties: what a search needs."""

    spaces = Field(list_of(text), "distinct spaces of the assets")
    kinds: Field[list[Kind]] = Field(list_of(KIND), "distinct kinds of the assets")


class AssetLatentExtension(_Measured):
    """Fields of a latent Asset: what is needed to choose, place and combine it."""

    kind: Field[Kind] = Field(KIND, "decodable (codec), or features only (embedding)")
    space = Field(text, "digest of chain, weights and normalisation")
    required_features = Field(
        list_of(text), "what a reader has to know lest bytes mean something else than it thinks"
    )
    granularity: Field[Granularity] = Field(
        one_of("pixel", "patch", "chip", "scene"), "what one vector describes"
    )
    dimensions = Field(integer, "channels per cell")
    stride = Field(list_of(integer, 2), "source pixels per cell (y, x)")
    halo = Field(
        list_of(integer, 2),
        "cells beyond the chunks of a window that a decoder needs (y, x); absent: all of the tensor",
    )
    padding = Field(list_of(integer, 4), "pixels to crop after decoding (top, bottom, left, right)")
    shape = Field(list_of(integer), "shape of the stored tensor")
    dim_order = Field(list_of(text), "names of the dimensions of the stored tensor")
    dtype = Field(text, "data type after dequantising")
    quantization: Field[Method] = Field(METHOD, "how stored symbols become numbers")
    quantization_scale = Field(list_of(number), "one value, or one for each channel")
    quantization_offset = Field(list_of(number), "one value, or one for each channel")
    quantization_power = Field(number, "value = sign(q) * (abs(q) * scale) ** power + offset")
    array = Field(
        text, "path of the array in the asset's container; absent: the latent of a store of this layout"
    )
    time_index = Field(integer, "step of the array's time axis, counted from 0")
    chip_index = Field(integer, "chip of a store that holds many, counted from 0")
    overviews = Field(text, "what a pixel of overviews is, where it may stand for those that it covers: mean")
    columns = Field(
        list_of(text), "columns of a table with the vectors: one of lists, or one for each channel"
    )
    position = Field(list_of(text, 2), "columns x and y of a table without a geometry")
    time_column = Field(text, "column of a table with the time of a row")
    scale_asset = Field(text, "key of the asset with the scales, on the Item or its Collection")
    bitstream = Field(text, "identifier and version of the entropy-coded payload")
    ood_tiles = Field(integer, "stored tiles whose own score is more than 1")
    fallback_tiles = Field(integer, "stored tiles that a residual keeps within an error bound because of it")
    fallback_bound = Field(number, "guaranteed largest absolute error of these tiles")
    checks = Field(list_of(text), "checks of the decoded pixels, such as psnr>=40:refuse")
    check_values = Field(list_of(optional(number)), "what the metric of each check measured")
    residual = Field(text, "identifier and version of the residuals that keep an error bound")
    error_bounds = Field(list_of(number), "guaranteed error of each band: absolute, or a share of the value")
    error_bound_kinds = Field(list_of(one_of("absolute", "relative")), "which of them, for each band")
    reference_item = Field(text, "id of the Item with the key frame that it was coded against")
    band_psnr = Field(list_of(optional(number)), "psnr of each decoded band in dB; null: lossless")
    band_max_error = Field(list_of(number), "max_error of each decoded band")
    input_digest = Field(text, "digest of what was encoded")
    source_bands = Field(list_of(text), "raw band of each decoded band")
    source_resampling = Field(text, "how the raw pixels were brought to this grid")
    metadata_digest = Field(text, "digest of the store's metadata, which then need not be read")
    mask_chunks = Field(text, "which chunks of the mask are stored, one bit each")
    encryption = Field(text, "how the stored chunks are encrypted")
    key_id = Field(text, "which key opens the wrapped key")
    wrapped_key = Field(text, "key of the asset's chunks, encrypted with the user's key")
    determinism: Field[Literal["exact", "platform"]] = Field(
        one_of("exact", "platform"), "whether every machine decodes to the same values"
    )


class ItemAssetLatentExtension(AssetLatentExtension):
    """The fields of an Asset, as a Collection announces them in ``item_assets``."""


class LinkLatentExtension(LatentExtension):
    """The fields of a Link: which space its target decodes, encodes or lies in, and which asset it is about."""

    space = Field(text, "digest of chain, weights and normalisation")
    asset = Field(text, "key of an asset that was coded against a key frame, here and in the target")


class SummariesLatentExtension(SummariesExtension):
    """What the Items of a Collection hold: lists of spaces and kinds, ranges of the measurements."""

    @property
    def spaces(self) -> list[str] | None:
        """Distinct spaces. pystac writes lists below its ``maxcount`` only, so setting raises that as needed."""
        return self.summaries.get_list("latent:spaces")

    @spaces.setter
    def spaces(self, values: list[str] | None) -> None:
        self.summaries.maxcount = max(self.summaries.maxcount, len(values or ()) + 1)
        self._set_summary("latent:spaces", values)

    @property
    def kinds(self) -> list[str] | None:
        """Distinct kinds."""
        return self.summaries.get_list("latent:kinds")

    @kinds.setter
    def kinds(self, values: list[str] | None) -> None:
        self._set_summary("latent:kinds", values)

    def range(self, name: str) -> pystac.RangeSummary[float] | None:
        """Range of a measurement, such as ``"psnr"``."""
        return self.summaries.get_range(self._measurement(name))

    def set_range(self, name: str, minimum: float, maximum: float) -> None:
        """Set the range of a measurement, such as ``"psnr"``; numbers in the field's own unit."""
        self._set_summary(self._measurement(name), pystac.RangeSummary(float(minimum), float(maximum)))

    def update(self, item: pystac.Item) -> None:
        """Widen the summaries by what an Item says of itself."""
        found = LatentExtension.ext(item)
        self.spaces = list(dict.fromkeys([*(self.spaces or ()), *(found.spaces or ())]))
        self.kinds = list(dict.fromkeys([*(self.kinds or ()), *(found.kinds or ())]))
        for name in sorted(_Measured._fields):
            value, known = getattr(found, name), self.range(name)
            if value is not None:
                low, high = (known.minimum, known.maximum) if known else (value, value)
                self.set_range(name, min(low, value), max(high, value))

    @staticmethod
    def _measurement(name: str) -> str:
        if name not in _Measured._fields:
            raise CatalogError(
                f"{name!r} has no range; expected one of {', '.join(sorted(_Measured._fields))}"
            )
        return PREFIX + name


class LatentExtensionHooks(ExtensionHooks):
    """Tells pystac of the extension. There is no older version, so nothing is migrated."""

    schema_uri: str = SCHEMA_URI
    prev_extension_ids: ClassVar[set[str]] = set()
    stac_object_types: ClassVar[set[pystac.STACObjectType]] = {
        pystac.STACObjectType.ITEM,
        pystac.STACObjectType.COLLECTION,
    }


LATENT_EXTENSION_HOOKS: ExtensionHooks = LatentExtensionHooks()
"""pystac >= 1.15.2 finds this by entry point; older ones through the lines below."""

if SCHEMA_URI not in pystac.EXTENSION_HOOKS.hooks:
    pystac.EXTENSION_HOOKS.add_extension_hooks(LATENT_EXTENSION_HOOKS)
