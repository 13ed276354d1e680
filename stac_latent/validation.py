"""Validate STAC documents without a network: core, our extension, other schemas from a folder, and the meaning.

A schema that is not at hand is a problem that is reported; it is never fetched, and never counts as passed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pystac
from jsonschema import Draft7Validator
from jsonschema.exceptions import SchemaError, ValidationError, best_match
from jsonschema.validators import validator_for
from pystac.validation.stac_validator import GetSchemaError, JsonSchemaSTACValidator
from referencing import Registry, Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT7

from stac_latent.errors import CatalogError, GridError
from stac_latent.extension import DECODER_REL, PREFIX, ROLE, SCHEMA_URI, check_version
from stac_latent.extension.features import check_features
from stac_latent.extension.measured import wrong_measurements
from stac_latent.geo.crs import crs_from_fields
from stac_latent.spec import Grid
from stac_latent.system.documents import read_json

__all__ = [
    "OfflineValidator",
    "Problem",
    "check_valid",
    "latent_schema",
    "projjson_schema",
    "schema_folder",
    "validate",
]

PROJJSON_URI = "https://proj.org/schemas/v0.7/projjson.schema.json"
_CORE = "https://schemas.stacspec.org/v{version}/{name}-spec/json-schema/{name}.json"
_BY_BAND = tuple(
    f"latent:{name}"
    for name in ("source_bands", "band_psnr", "band_max_error", "error_bounds", "error_bound_kinds")
)
"""Lists with a value for each decoded band."""
_NAMES = {"Feature": "item", "Collection": "collection", "Catalog": "catalog"}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a document, or could not be checked."""

    path: str
    """Where, as keys and positions joined by slashes; empty for the document itself."""
    message: str
    keyword: str
    """JSON schema keyword that failed, ``unavailable`` (schema not at hand) or ``meaning`` (fields disagree)."""
    schema: str
    """Address of the schema."""

    def __str__(self) -> str:
        return f"{self.path or '(document)'}: {self.message} [{self.keyword}, {self.schema}]"


class OfflineValidator(JsonSchemaSTACValidator):
    """Validator for pystac that never fetches: pass it to ``item.validate(validator=)``.

    Parameters
    ----------
    schemas
        Folder with other schemas and an ``index.json`` that maps their addresses to file names.

    Raises
    ------
    CatalogError
        If the folder has no such index, or a schema in it is no JSON.
    """

    def __init__(self, schemas: str | Path | None = None) -> None:
        super().__init__()
        self.schema_cache[SCHEMA_URI] = _read_json(latent_schema())
        if (projjson := projjson_schema()) is not None:
            self.schema_cache[PROJJSON_URI] = _read_json(projjson)
        for uri, path in ({} if schemas is None else schema_folder(schemas)).items():
            self.schema_cache[uri] = _read_json(path)

    def _get_schema(self, schema_uri: str) -> dict[str, Any]:
        if schema_uri not in self.schema_cache:
            raise GetSchemaError(schema_uri, LookupError("not available offline"))
        return self.schema_cache[schema_uri]

    @cached_property
    def registry(self) -> Any:
        """Registry of the schemas at hand, built once; a schema that names no draft is read as draft 7."""

        def resource(schema: dict[str, Any]) -> Any:
            return Resource.from_contents(schema, default_specification=DRAFT7)

        known = [(uri, resource(schema)) for uri, schema in self.schema_cache.items()]
        registry: Any = Registry(retrieve=lambda uri: resource(self._get_schema(uri)))  # type: ignore[call-arg]
        return registry.with_resources(known)

    @cache  # noqa: B019 - one validator for each schema of an object that lives as long as they do
    def _compiled(self, schema_uri: str) -> Any:
        schema = self._get_schema(schema_uri)
        kind = validator_for(schema, default=Draft7Validator)
        kind.check_schema(schema)
        return kind(schema, registry=self.registry)

    def problems(self, document: Mapping[str, Any], schema_uri: str) -> Iterator[Problem]:
        """Yield what one schema finds wrong with a document."""
        try:
            for error in self._compiled(schema_uri).iter_errors(document):
                found: ValidationError = best_match([error])
                path = "/".join(str(p) for p in found.absolute_path)
                wanted = (
                    f"; expected {json.dumps(found.validator_value)}" if found.validator == "contains" else ""
                )
                yield Problem(path, found.message + wanted, str(found.validator or "false"), schema_uri)
        except GetSchemaError:
            yield Problem("stac_extensions", _unavailable(schema_uri), "unavailable", schema_uri)
        except Unresolvable as exc:
            yield Problem("", f"the schema refers to {_unavailable(exc.ref)}", "unavailable", schema_uri)
        except SchemaError as exc:
            yield Problem("", f"the schema itself is not valid: {exc.message}", "unavailable", schema_uri)


def validate(
    document: pystac.STACObject | Mapping[str, Any] | str | Path, schemas: str | Path | None = None
) -> list[Problem]:
    """Check a STAC document against every schema that it names, and its ``latent:`` fields against each other.

    Parameters
    ----------
    document
        Item, Collection or Catalog: a pystac object, a dictionary, or the path of a JSON file. The Items of a
        FeatureCollection are checked one by one.
    schemas
        Folder with the schemas of other extensions, see :class:`OfflineValidator`.

    Returns
    -------
    list of Problem
        Empty if all was checked and nothing found.

    Raises
    ------
    CatalogError
        If the document cannot be read, is no STAC, or declares a newer version of the extension.

    Examples
    --------
    >>> catalog = pystac.Catalog("c", "A catalogue")
    >>> validate(catalog)
    []
    """
    return _validate(_document(document), _validator(None if schemas is None else str(schemas)))


def check_valid(
    document: pystac.STACObject | Mapping[str, Any] | str | Path, schemas: str | Path | None = None
) -> None:
    """Raise what :func:`validate` finds.

    Raises
    ------
    CatalogError
        If there is any problem; the message lists the first ten.
    """
    found = validate(document, schemas)
    if found:
        more = f"\n  and {len(found) - 10} more" if len(found) > 10 else ""
        lines = "".join(f"\n  {problem}" for problem in found[:10])
        raise CatalogError(f"not valid STAC, {len(found)} problem(s):{lines}{more}")


def latent_schema() -> Path:
    """Path of the extension's own JSON schema: in the wheel, or in a source tree."""
    here = Path(__file__).parent
    installed = here / "schema.json"
    return (
        installed
        if installed.is_file()
        else here.parent / "extensions" / "latent" / "json-schema" / "schema.json"
    )


def projjson_schema() -> Path | None:
    """Path of the PROJJSON schema that rasterio's wheel carries, to which projection 2.0 refers; None without it."""
    rasterio = find_spec("rasterio")
    for folder in (rasterio.submodule_search_locations or ()) if rasterio else ():
        path = Path(folder) / "proj_data" / "projjson.schema.json"
        if path.is_file():
            return path
    return None


def schema_folder(folder: str | Path) -> dict[str, Path]:
    """Read the ``index.json`` of a folder of schemas: the address of each, and its file.

    Raises
    ------
    CatalogError
        If there is no such index, or it names a file that is not there.
    """
    index = _read_json(Path(folder) / "index.json")
    paths = {str(uri): Path(folder) / str(name) for uri, name in index.items()}
    if missing := [path.name for path in paths.values() if not path.is_file()]:
        raise CatalogError(
            f"{str(folder)!r}: index.json names files that are not there: {', '.join(missing)}; "
            "expected {address: file name}"
        )
    return paths


@lru_cache(maxsize=4)
def _validator(schemas: str | None) -> OfflineValidator:
    return OfflineValidator(schemas)


def _validate(document: Mapping[str, Any], validator: OfflineValidator) -> list[Problem]:
    kind = document.get("type")
    if kind == "FeatureCollection":
        return [
            Problem(f"features/{i}/{p.path}".rstrip("/"), p.message, p.keyword, p.schema)
            for i, item in enumerate(document.get("features") or [])
            for p in _validate(item, validator)
        ]
    if kind not in _NAMES or not isinstance(document.get("stac_version"), str):
        raise CatalogError(
            f"no STAC document: type {kind!r}, stac_version {document.get('stac_version')!r}; expected an Item "
            "(Feature), Collection, Catalog or FeatureCollection of STAC 1.1"
        )
    check_version(document)
    core = _CORE.format(version=document["stac_version"], name=_NAMES[kind])
    declared = [str(uri) for uri in document.get("stac_extensions") or []]
    found = [p for uri in (core, *declared) for p in validator.problems(document, uri)]
    if SCHEMA_URI not in declared:
        return [*found, *_undeclared(document)]
    found += _features(document)
    if kind == "Feature" and not any(p.schema in (core, SCHEMA_URI) for p in found):
        found += [Problem(path, message, "meaning", SCHEMA_URI) for path, message in _meaning(document)]
    return found


def _features(document: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what a reader of this version would refuse."""
    assets = document.get("assets")
    for key, asset in assets.items() if isinstance(assets, Mapping) else ():
        try:
            check_features(asset if isinstance(asset, Mapping) else {}, f"asset {key!r}")
        except CatalogError as exc:
            yield Problem(f"assets/{key}/latent:required_features", str(exc), "meaning", SCHEMA_URI)


def _undeclared(document: Mapping[str, Any]) -> Iterator[Problem]:
    places = {"properties": document.get("properties"), "summaries": document.get("summaries")}
    for group in ("assets", "item_assets"):
        places |= {f"{group}/{key}": asset for key, asset in (document.get(group) or {}).items()}
    for path, fields in places.items():
        if isinstance(fields, Mapping) and (names := [k for k in fields if k.startswith(PREFIX)]):
            message = f"{', '.join(names)} used, but {SCHEMA_URI} is not in stac_extensions"
            yield Problem(path, message, "meaning", SCHEMA_URI)


def _meaning(item: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what no schema can say of an Item: where fields that are right by themselves disagree."""
    latents = {k: a for k, a in item["assets"].items() if ROLE in (a.get("roles") or ())}
    for plural, single in (("latent:spaces", "latent:space"), ("latent:kinds", "latent:kind")):
        values, given = {a[single] for a in latents.values()}, set(item["properties"].get(plural, ()))
        if latents and values != given:
            yield f"properties/{plural}", f"{sorted(given)} are not the assets' {single}: {sorted(values)}"
    for name, message in wrong_measurements(item["properties"], latents.values()):
        yield f"properties/{name}", message
    decoders = {link.get("latent:space") for link in item["links"] if link.get("rel") == DECODER_REL}
    frames = {
        (link.get("latent:asset"), link.get("latent:space"))
        for link in item["links"]
        if link.get("rel") == "latent:reference"
    }
    for key, asset in latents.items():
        here = f"assets/{key}"
        if asset.get("latent:reference_item") and (key, asset["latent:space"]) not in frames:
            yield (
                here,
                f"no latent:reference link has latent:asset {key!r} and the asset's space {asset['latent:space']}",
            )
        yield from ((f"{here}/{path}", message) for path, message in (*_tensor(asset), *_lists(asset)))
        scales = asset.get("latent:scale_asset")
        if scales is not None and scales not in item["assets"] and not item.get("collection"):
            yield (
                f"{here}/latent:scale_asset",
                f"there is no asset {scales!r} (has: {', '.join(item['assets'])})",
            )
        if asset["latent:kind"] == "codec":
            if asset["latent:space"] not in decoders:
                yield here, f"no {DECODER_REL} link has the asset's space {asset['latent:space']}"
            yield from ((f"{here}/{path}", message) for path, message in _grid(item["properties"], asset))


def _tensor(asset: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    shape, order, channels = asset["latent:shape"], asset["latent:dim_order"], asset["latent:dimensions"]
    sizes = dict(zip(order, shape, strict=False))
    if len(shape) != len(order):
        yield "latent:shape", f"{shape} has not the dimensions {order} of latent:dim_order"
    elif sizes.get("channel", channels) != channels:
        yield "latent:shape", f"{sizes['channel']} channels, but latent:dimensions is {channels}"
    for name in ("latent:quantization_scale", "latent:quantization_offset"):
        if len(asset.get(name, [0])) not in (1, channels):
            yield name, f"{len(asset[name])} values; expected one, or one for each of {channels} channels"


def _lists(asset: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    bands = len(asset.get("bands") or ())
    for name in _BY_BAND:
        if name in asset and len(asset[name]) != bands:
            yield name, f"{len(asset[name])} values; expected one for each of the asset's {bands} bands"
    checks, values = asset.get("latent:checks", []), asset.get("latent:check_values", [])
    if len(checks) != len(values):
        yield (
            "latent:check_values",
            f"{len(values)} values; expected one for each of {len(checks)} latent:checks",
        )


def _grid(properties: Mapping[str, Any], asset: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    try:
        crs = crs_from_fields(asset, properties)
    except GridError as exc:
        yield str(exc).partition(" ")[0].rstrip(":"), str(exc)
        return
    if crs is None:
        yield "proj:code", "neither the asset nor the Item says its CRS"
    try:
        cells = Grid.from_fields(asset, {"proj:code": "EPSG:4326"}).cells
    except GridError as exc:
        yield "latent:padding", str(exc)
        return
    sizes = dict(zip(asset["latent:dim_order"], asset["latent:shape"], strict=False))
    stored = (sizes.get("y", cells[0]), sizes.get("x", cells[1]))
    if stored != cells:
        yield (
            "latent:shape",
            f"{stored} cells (y, x) are stored, but stride and padding make {cells} of proj:shape",
        )


def _document(document: pystac.STACObject | Mapping[str, Any] | str | Path) -> Mapping[str, Any]:
    if isinstance(document, str | Path):
        return _read_json(Path(document))
    if isinstance(document, Mapping):
        raw: Any = dict(document)
    else:
        raw = document.to_dict(include_self_link=False, transform_hrefs=False)
    try:
        read: dict[str, Any] = json.loads(json.dumps(raw, allow_nan=False))
    except (TypeError, ValueError) as exc:
        raise CatalogError(
            f"{raw.get('id')!r} cannot be written as JSON: {exc}; convert numpy numbers and leave infinities out"
        ) from exc
    return read


def _read_json(path: Path) -> dict[str, Any]:
    try:
        read = read_json(path)
    except CatalogError as exc:
        raise CatalogError(f"{exc}; expected a JSON object") from None
    if not isinstance(read, dict):
        raise CatalogError(f"{str(path)!r} holds a JSON {type(read).__name__}; expected an object")
    return read


def _unavailable(uri: str) -> str:
    return f"{uri}, which is not available offline; give a folder that has it (schemas=, with an index.json)"
