"""Which of the bands that are asked for are decoded ones and which are raw: one rule for all Items of a cube."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import pystac

from stac_latent.cube.asset_choice import named_index
from stac_latent.cube.band_names import RESERVED, label
from stac_latent.cube.raw.named import RawBands
from stac_latent.cube.ref import LatentRef
from stac_latent.errors import CatalogError
from stac_latent.system.suggest import did_you_mean

__all__ = ["asked_names", "check_decoded", "check_known", "raw_names"]


class _Choice(Protocol):
    @property
    def item(self) -> pystac.Item:
        """The Item."""
        ...

    @property
    def ref(self) -> LatentRef:
        """Its latent asset."""
        ...

    @property
    def raw(self) -> RawBands:
        """Its raw bands."""
        ...


def asked_names(bands: str | Iterable[str] | None) -> list[str]:
    """Names that were asked for, each once; none where nothing was asked.

    Raises
    ------
    CatalogError
        If they are no texts.
    """
    if not (bands is None or isinstance(bands, str | Iterable)):
        raise CatalogError(f"bands={bands!r:.60} is no list of names; expected such as ['red', 'scl']")
    given = [bands] if isinstance(bands, str) else list(bands or ())
    if wrong := [n for n in given if not isinstance(n, str)]:
        raise CatalogError(
            f"bands={wrong[0]!r:.60} is no name of a band; expected texts such as 'red' or 'latent.B04'"
        )
    if bands is not None and not given:
        raise CatalogError("bands= is empty; name bands, or leave it out to load all decoded ones")
    return list(dict.fromkeys(given))


def check_known(names: Sequence[str], of: _Choice) -> None:
    """See that an Item has bands of these names.

    Raises
    ------
    CatalogError
        If it lacks one; the message lists its decoded and its raw bands.
    """
    ref = of.ref
    common = [b.common_name for b in ref.spec.bands]
    for name in names:
        if common.count(name) > 1 and named_index(ref, name) is None:
            bands = ", ".join(b.name for b in ref.spec.bands if b.common_name == name)
            raise CatalogError(
                f"{name!r} is the common name of several bands of asset {ref.asset!r} of item {ref.item_id!r}: {bands}; ask for one by its name"
            )
    missing = [n for n in names if named_index(ref, n) is None and of.raw.find(n) is None]
    if missing:
        existing = [n for b in ref.spec.bands for n in (b.name, b.common_name) if n] + of.raw.names
        named = ", ".join(f"{n!r}{did_you_mean(n, existing)}" for n in missing)
        decoded = ", ".join(label(b.name, b.common_name) for b in ref.spec.bands)
        raise CatalogError(
            f"no band {named} in asset {ref.asset!r} of item {ref.item_id!r}; it has {decoded}{_raw_part(of)}"
        )
    for name in names:
        if named_index(ref, name) is None and (found := of.raw.find(name)) is not None:
            _ = found.box  # which is refused where it is none
    if taken := [n for n in names if n in RESERVED]:
        raise CatalogError(
            f"a variable of a cube cannot be called {taken[0]!r}; ask for the band as 'asset key.{taken[0]}'"
        )


def _raw_part(of: _Choice) -> str:
    if of.raw.rows:
        return f"; raw bands of the item: {of.raw.listing}"
    derived = next((link for link in of.item.links if link.rel == "derived_from"), None)
    if derived is None:
        return "; the item has no raw bands"
    return (
        f"; the item has no raw bands: they are in the item that it is derived from ({derived.href!s:.200}). Encode with mode='beside' to "
        "have both in one item, or load them from there with odc.stac.load(geobox=) on the grid of this cube"
    )


def raw_names(names: Sequence[str], choices: Sequence[_Choice]) -> list[str]:
    """Those of the names that are raw bands; a bare name is the decoded band where the latent asset of any Item has it."""
    return [n for n in names if all(named_index(c.ref, n) is None for c in choices)]


def check_decoded(names: Sequence[str], of: _Choice) -> None:
    """See that these are decoded bands of an Item, and not raw ones as other Items may have them.

    Raises
    ------
    CatalogError
        If they are; the message says how the raw ones are asked for.
    """
    for name in names:
        if named_index(of.ref, name) is None:
            raise CatalogError(
                f"{name!r} is a raw band of item {of.item.id!r} and a decoded one of others: load these items apart, or ask for the raw band "
                f"of all by the key of its asset, such as {_explicit(of, name)!r}"
            )


def _explicit(of: _Choice, name: str) -> str:
    found = of.raw.find(name)
    return (
        name if found is None else f"{found.ref.asset}.{found.ref.row['names'][1] or found.ref.row['index']}"
    )
