"""In which space the vectors of an adopted file lie: producer, product and version of the model, as said or as found beside the file."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from stac_latent.catalog.adopt.description import UserMetadata
from stac_latent.catalog.adopt.products import Product, space_digest
from stac_latent.errors import CatalogError
from stac_latent.system.documents import read_json
from stac_latent.system.links import is_local, local_path

__all__ = ["space_of"]

_PARENTS = 8
"""Folders above a file in which what lies beside it is looked for."""


def space_of(
    product: Product, href: str, told: UserMetadata, attributes: Mapping[str, Any], footer: Mapping[str, Any]
) -> str:
    """Digest of the space of a file's vectors.

    A part of the product's ``space`` is a text, or says where it is: ``href`` (pairs of a pattern and what it stands for, of which the
    first that fits counts), ``sidecar`` (a JSON file in a folder above, and its keys), ``attribute`` (of a Zarr group, or a tag
    of a GeoTIFF; several with a dash between), ``footer`` (path of keys in a Parquet footer, ``keys`` of what is there), or
    ``option`` (an argument). ``names`` are replacements that give one version one name.

    Raises
    ------
    CatalogError
        If a part is found nowhere, or two places say it differently.
    """
    if said := {**product.asset, **told.fields}.get("latent:space"):
        return str(said)
    facts: dict[str, Any] = {}
    for part in ("producer", "product", "version"):
        rule = product.space[part]
        given = {"producer": told.producer, "product": told.name, "version": told.version}[part]
        if isinstance(rule, str):
            facts[part] = rule if given is None else given
        else:
            facts[part] = _part(part, rule, given, product, href, attributes, footer)
    return space_digest(facts)


def _part(
    part: str, rule: Mapping[str, Any], given: str | None, product: Product, href: str, attributes: Mapping[str, Any],
    footer: Mapping[str, Any],
) -> Any:  # fmt: skip
    if given is not None:
        return _named(given, rule)
    found = {where: _named(value, rule) for where, value in _found(rule, href, attributes, footer)}
    option = {"product": "name", "version": "model-version"}.get(part, part)
    way_out = f"state it with --{option}, or {'version' if part == 'version' else option}="
    if found:
        fullest = max(found.values(), key=lambda v: len(str(v)))
        if not all(_same(v, fullest) for v in found.values()):
            said = ", ".join(f"{where} says {value!r}" for where, value in found.items())
            raise CatalogError(
                f"{href}: it is not clear which {part} of {product.name!r} this is ({said}); {way_out}"
            )
        if (pattern := rule.get("incomplete")) and re.search(pattern, str(fullest)):
            warnings.warn(
                f"{href} says {part} {fullest} and not which variant of it; vectors of its variants must not meet: {way_out}",
                stacklevel=2,
            )
        return fullest
    if (assumed := _of_href(rule.get("otherwise", ()), href)) is not None:
        warnings.warn(
            f"{href} does not say the {part} of its model; its vectors have a space of their own ({assumed}): {way_out}",
            stacklevel=2,
        )
        return assumed
    raise CatalogError(
        f"{href}: product {product.name!r} does not say the {part} of its model, and vectors of other models must not meet: {way_out}"
    )


def _same(value: Any, fullest: Any) -> bool:
    """Whether a version is another one, or a part of its name."""
    return bool(value == fullest or (isinstance(value, str) and str(fullest).startswith(f"{value}-")))


def _named(value: Any, rule: Mapping[str, Any]) -> Any:
    """A version by its one name; what is no text stays as it is."""
    if isinstance(value, str):
        for pattern, replacement in rule.get("names", ()):
            value = re.sub(pattern, replacement, value)
    return value


def _found(
    rule: Mapping[str, Any], href: str, attributes: Mapping[str, Any], footer: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    """Where a part is said, and what is said there."""
    if (value := _of_href(rule.get("href", ()), href)) is not None:
        yield "the address", value
    if "sidecar" in rule and (told := _sidecar(href, *rule["sidecar"])) is not None:
        yield told
    names = rule.get("attribute", [])
    for group in [[names]] if isinstance(names, str) else names:
        keys = [group] if isinstance(group, str) else group
        if (value := _joined([attributes.get(k) for k in keys])) is not None:
            yield ", ".join(keys), value
    place: Any = footer if "footer" in rule else None
    for key in rule.get("footer", ()):
        place = place.get(key) if isinstance(place, Mapping) else None
    if isinstance(place, Mapping) and "keys" in rule:
        place = {k: place[k] for k in rule["keys"] if k in place} or None
    if place is not None:
        yield "the footer", place


def _joined(values: list[Any]) -> str | None:
    """The first with the others behind it, those that are there; None without the first."""
    if values[0] in (None, ""):
        return None
    return "-".join(str(v) for v in values if v not in (None, ""))


def _of_href(rules: Any, href: str) -> str | None:
    path = href.replace("\\", "/")
    for pattern, replacement in rules:
        if found := re.search(pattern, path):
            return found.expand(replacement)
    return None


def _sidecar(href: str, name: str, *keys: str) -> tuple[str, str] | None:
    """What the nearest file of that name in a folder above says."""
    if not is_local(href):
        return None
    for folder in list(local_path(href).parents)[:_PARENTS]:
        path = folder / name
        if not path.is_file():
            continue
        try:
            doc = read_json(path)
            value = _joined([doc.get(k) for k in keys])
        except (OSError, ValueError, AttributeError, RecursionError) as exc:
            raise CatalogError(
                f"{path} is no JSON object that can be read: {exc}; mend or remove it"
            ) from exc
        return None if value is None else (str(path), value)
    return None
