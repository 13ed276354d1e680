"""What a caller of ``encode`` asked for: its keywords become one object, and what does not go together is refused here alone."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Self

import pystac

from stac_latent.bytestring.bounded import base_step
from stac_latent.catalog.encode.encoded_item import Mode
from stac_latent.catalog.encode.fingerprint import INPUT
from stac_latent.catalog.encode.key_frames import References
from stac_latent.codec.codec import Codec
from stac_latent.cube.item_assets import as_items
from stac_latent.cube.raw.contract import Trust
from stac_latent.cube.write.monitor import Policy, QualityPolicy
from stac_latent.errors import CatalogError, CodecError
from stac_latent.field.error_bound import BoundLike, ErrorBound
from stac_latent.field.rate_target import Target
from stac_latent.quality.checks import Check
from stac_latent.secure import Key, use
from stac_latent.store.zarr.group import Payload, StoreLayout
from stac_latent.store.zarr.pack import MOST
from stac_latent.system.names import safe_name
from stac_latent.system.suggest import did_you_mean

__all__ = ["EncodeKeywords", "EncodeOptions", "OnError", "SourceGrid", "items_to_encode"]

OnError = Literal["raise", "skip"]


def items_to_encode(items: pystac.Item | Iterable[pystac.Item]) -> list[pystac.Item]:
    """Items to encode, each id once."""
    todo = as_items(items, "encode")
    if len({i.id for i in todo}) < len(todo):
        raise CatalogError("two of the items have the same id; a catalogue holds each id once")
    return todo


@dataclass(frozen=True)
class SourceGrid:
    """Which bands of an Item are read, and on which grid.

    Parameters
    ----------
    bands
        Asset keys by the codec's band names, where they cannot be matched.
    resolution, resampling
        A grid to resample to; without one, bands keep their native grids.
    trust
        Whom to believe where Item and file contradict each other on the grid; None refuses such an Item.
    """

    bands: Mapping[str, str] | None = None
    resolution: float | None = None
    resampling: str = "nearest"
    trust: Trust | None = None


@dataclass(frozen=True)
class EncodeKeywords:
    """The keywords of :func:`stac_latent.encode` as its caller wrote them; nothing of it is checked yet."""

    asset: str
    mode: Mode
    overwrite: bool
    on_error: OnError
    payload: Payload | None
    target: Mapping[str, Any]
    error_bound: BoundLike | None
    references: References
    guard: Policy | None
    fallback_bound: float
    checks: Sequence[str | Check]
    key: Key | str | os.PathLike[str] | None
    pixels: SourceGrid
    layout: StoreLayout | None = None
    thumbnail: bool = True
    pack: int | None = None

    def checked(self, codec: Codec) -> EncodeOptions:
        """The options that they state for a codec.

        Raises
        ------
        CatalogError
            If a keyword has a value that is not known, or two of them do not go together.
        CodecError
            If the codec cannot do what is asked for, or a number makes no sense.
        OptionError
            If there is a target of another name than the five.
        EncryptionError
            If the key cannot be read.
        """
        target = Target.of(self.target, "encode()")
        if not target.given:
            target = codec.target
        payload = self._payload(codec, target)
        bound = self._bound(codec)
        if not target.given and bound is not None:
            target = Target(step=base_step(codec, bound, [0.0] * len(codec.bands)))
        codec.with_target(target)  # refuses what the codec cannot reach
        quality = QualityPolicy.from_options(
            codec, self.guard, self.checks, self.fallback_bound, bounded=bound is not None
        )
        key = self._encryption()
        _refuse_unknown("mode", self.mode, ("beside", "derived"))
        _refuse_unknown("on_error", self.on_error, ("raise", "skip"))
        safe_name(self.asset, "asset")
        return EncodeOptions(
            codec=codec, asset=self.asset, mode=self.mode, overwrite=self.overwrite, skip_failing=self.on_error == "skip",
            payload=payload, target=target, error_bound=bound, quality=quality, key_frames=self.references, key=key,
            pixels=self.pixels, layout=self._layout(codec), thumbnail=self.thumbnail and self.pack is None, pack=self._pack(),
        )  # fmt: skip

    def _payload(self, codec: Codec, target: Target) -> Payload:
        """How the latents are stored: entropy coded where the chain can, unless the caller says otherwise."""
        if self.payload is None:
            return "plain" if codec.tail is None else "coded"
        _refuse_unknown("payload", self.payload, ("coded", "plain"))
        if self.payload == "coded" and codec.tail is None:
            raise CodecError(
                f"codec {codec.name!r} has no entropy coder; store its symbols with payload='plain' (--payload plain)"
            )
        if self.payload == "plain" and target.given:
            raise CatalogError(
                f"payload='plain' stores the latents as they are, at no rate, so that {target} would not be heeded: leave it out, or "
                "take payload='coded' (--payload coded)"
            )
        return self.payload

    def _bound(self, codec: Codec) -> ErrorBound | None:
        """What every pixel of the codec's bands shall keep, in their order."""
        if self.error_bound is None:
            return None
        if codec.kind != "codec":
            raise CatalogError(
                f"codec {codec.name!r} is an embedder: what it writes cannot be decoded, and has no error to bound"
            )
        return ErrorBound.of(self.error_bound, codec.bands)

    def _layout(self, codec: Codec) -> StoreLayout:
        """How stores are cut: as the caller says, if shards are whole chunks; a codec of tiles has chunks of its own."""
        given = self.layout or StoreLayout()
        if given.inner is None and given.shard is None:
            return given
        if codec.tiled:
            raise CatalogError(
                f"chunks of codec {codec.name!r} are its tiles, which follow the size of the scene: leave inner and shard out of the "
                f"layout; got {given}"
            )
        inner, shard = given.inner or 0, 8 * (given.inner or 0) if given.shard is None else given.shard
        if inner < 1 or shard < inner or shard % inner:
            raise CatalogError(f"layout must have shards of whole chunks; got {given}")
        return given

    def _pack(self) -> int | None:
        """How many Items share a store, if stores can be shared."""
        if self.pack is None:
            return None
        if type(self.pack) is not int or not 1 <= self.pack <= MOST:
            raise CatalogError(f"pack={self.pack!r}; expected the number of items in a store, 1 to {MOST}")
        _refuse_together(
            "items that share a store (pack=, --pack)",
            ("references", "--references", self.references is not None),
            ("key", "--key-file", self.key is not None),
            ("error_bound", "--error-bound", self.error_bound is not None),
            ("guard='fallback'", "--guard fallback", self.guard == "fallback"),
            ("layout with sharded=False", "--no-shards", self.layout is not None and not self.layout.sharded),
        )
        return self.pack

    def for_workers(self, options: EncodeOptions) -> Self:
        """The keywords as workers are told them, with the target that the codec itself may have.

        Raises
        ------
        CatalogError
            If Items depend on each other, or a key would have to be handed over.
        """
        _refuse_together(
            "workers (executor=, --jobs)",
            ("references", "--references", self.references is not None),
            ("pack", "--pack", self.pack is not None),
        )
        if isinstance(self.key, Key):
            raise CatalogError(
                "a key is not handed to workers: give key= the path of a key file that they can read, or leave executor= out"
            )
        return replace(self, target=options.target.given, on_error="raise")

    def _encryption(self) -> Key | None:
        """Key to encrypt with, if any."""
        if self.key is None:
            return None
        if self.guard == "fallback":
            raise CatalogError(
                "encrypted stores have no fallback of single tiles: take error_bound= for all of them, or guard='warn'"
            )
        if self.references is not None:
            raise CatalogError(
                "encrypted dates are not coded against key frames: leave out references= or key="
            )
        return use(self.key)


@dataclass(frozen=True)
class EncodeOptions:
    """What one ``encode`` does with each of its Items; checked, and equal for all of them but for the codec of their bands.

    Parameters
    ----------
    codec
        What the Items are encoded with.
    asset, mode
        Key of the latent asset, and which Item carries it; see :func:`stac_latent.encode`.
    overwrite
        Whether assets that were made from other inputs are replaced.
    skip_failing
        Whether an Item that cannot be encoded is passed over.
    payload
        Form of the stored latents.
    target
        What each tile of them reaches; none is the codec's own step.
    error_bound
        What every decoded pixel keeps, in the order of the codec's bands.
    quality
        Guard, its fallback, and checks.
    key_frames
        What dates are coded against.
    key
        Encrypts the chunks.
    pixels
        Bands and grid that are read.
    layout
        How stores are cut.
    thumbnail
        Whether Items gain a picture.
    pack
        How many Items share a store, at most; None where each has its own.
    """

    codec: Codec
    asset: str
    mode: Mode
    overwrite: bool
    skip_failing: bool
    payload: Payload
    target: Target
    error_bound: ErrorBound | None
    quality: QualityPolicy
    key_frames: References
    key: Key | None
    pixels: SourceGrid
    layout: StoreLayout = field(default_factory=StoreLayout)
    thumbnail: bool = True
    pack: int | None = None

    def for_codec(self, codec: Codec) -> Self:
        """The same for a codec that was made for the types or the native grids of an Item's bands; these may be in another order.

        Raises
        ------
        CatalogError
            If a policy of the guard was named, and this codec has no calibration.
        """
        if codec.space == self.codec.space:
            return self
        names = [b.name for b in self.codec.bands]
        order = [names.index(b.name) for b in codec.bands]
        bound = None if self.error_bound is None else self.error_bound.some(order)
        return replace(self, codec=codec, error_bound=bound, quality=self.quality.for_codec(codec))

    def fingerprint(self, key_frame: pystac.Item | None) -> dict[str, Any]:
        """What decides on the bytes of a latent beside its source, as JSON: an Item whose asset has the same is not encoded again.

        Parameters
        ----------
        key_frame
            What the Item is coded against.
        """
        out: dict[str, Any] = {
            "space": self.codec.space,
            "target": asdict(self.target) | {"overhead": 0, "samples": None},  # stored digests have them
            "payload": self.payload,
            "reference": None,
        }
        if key_frame is not None:
            out["reference"] = [key_frame.id, key_frame.assets[self.asset].extra_fields.get(INPUT)]
        if self.layout != StoreLayout():
            out["layout"] = [self.layout.inner, self.layout.shard] + [False] * (not self.layout.sharded)
        if self.key is not None:
            out["encrypt"] = self.key.id
        if self.error_bound is not None:
            out["error_bound"] = str(self.error_bound)
        return out | self.quality.fingerprint()


def _refuse_together(what: str, *others: tuple[str, str, bool]) -> None:
    """Refuse what does not go with the options that are given: keyword, option of the command, and whether it is."""
    for name, option, is_given in others:
        if is_given:
            raise CatalogError(f"{what} do not go with {name} ({option}): leave out either")


def _refuse_unknown(name: str, value: Any, known: Sequence[str]) -> None:
    if value not in known:
        expected = " or ".join(map(repr, known))
        raise CatalogError(f"{name}={value!r}{did_you_mean(str(value), known)}; expected {expected}")
