"""What can be asked for of latents: the queryables of the ``latent:`` properties, for an API that wants them declared."""

from __future__ import annotations

import json
from typing import Any

from stac_latent.validation import latent_schema

__all__ = ["INDEXED", "TITLES", "queryables"]

INDEXED = ("latent:psnr", "latent:bits_per_pixel", "latent:max_error", "latent:kinds", "latent:spaces")
"""Properties that :func:`stac_latent.search` has arguments for: those to make indexes of."""
_DEFINITIONS = "#/definitions/"
TITLES = {
    "latent:spaces": "Latent spaces",
    "latent:kinds": "Kinds of latents",
    "latent:bits_per_pixel": "Bits per pixel and band",
    "latent:psnr": "PSNR [dB]",
    "latent:max_error": "Largest error",
    "latent:sam": "Spectral angle [deg]",
    "latent:error_bound": "Guaranteed error",
    "latent:ood_score": "Distance from the training data",
}


def queryables(address: str = "https://stac-latent.github.io/latent/queryables.json") -> dict[str, Any]:
    """Queryables document (JSON Schema) of the ``latent:`` properties of Items.

    A server that does not know a property's type may compare and sort its numbers as text: 9 dB after 45 dB.

    Parameters
    ----------
    address
        ``$id`` of the document.

    Returns
    -------
    dict
        Types are those of the extension's own schema; other properties stay allowed.

    Examples
    --------
    >>> queryables()["properties"]["latent:psnr"]["type"]
    'number'
    """
    schema = json.loads(latent_schema().read_text(encoding="utf-8"))
    definitions = schema["definitions"]
    found = definitions["item_properties"]["allOf"][0]["properties"]
    return {
        "$schema": "https://json-schema.org/draft/2019-09/schema",
        "$id": address,
        "type": "object",
        "title": "Queryables of the latent extension",
        "properties": {
            name: {"title": TITLES.get(name, name), **_resolved(field, definitions)}
            for name, field in found.items()
        },
        "additionalProperties": True,
    }


def _resolved(value: Any, definitions: dict[str, Any]) -> Any:
    """Value of a schema with its references to definitions written out."""
    if isinstance(value, list):
        return [_resolved(v, definitions) for v in value]
    if not isinstance(value, dict):
        return value
    if str(value.get("$ref", "")).startswith(_DEFINITIONS):
        found: Any = definitions
        for name in value["$ref"].removeprefix(_DEFINITIONS).split("/"):
            found = found[name]
        return _resolved(found, definitions)
    if set(value) == {"description", "allOf"}:
        return {"description": value["description"], **_resolved(value["allOf"][0], definitions)}
    return {key: _resolved(v, definitions) for key, v in value.items()}
