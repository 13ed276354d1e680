"""CQL2 over Items: parse text or JSON, and evaluate it here with the three-valued logic of SQL.

A missing property is null; a comparison with null is unknown; an item matches where the whole filter is true, so
``NOT (latent:psnr > 30)`` leaves out an item that has no ``latent:psnr``, as a database would.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from stac_latent.catalog.search.cql2_operators import STRICT, conjunction, disjunction, negation, parse_time
from stac_latent.errors import SearchError
from stac_latent.geo.extents import flat_bbox

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

__all__ = ["Predicate", "Row", "compared_with_numbers", "compile_filter", "parse_filter", "properties_of"]

Row = Callable[[str], Any]
"""Value of a named property of one item, None where it is missing; times are aware datetimes, geometries shapely's."""
Predicate = Callable[[Row], Any]
"""True, False, or None where the answer is unknown."""

MAX_DEPTH = 100


def parse_filter(text: str | Mapping[str, Any]) -> dict[str, Any]:
    """CQL2 JSON of a filter given as CQL2 text, as a JSON string, or as JSON already.

    Parameters
    ----------
    text : str or mapping
        ``"latent:psnr > 40 AND platform = 'sentinel-2a'"``, or its CQL2 JSON.

    Raises
    ------
    SearchError
        If it does not parse (the message shows where), or if text is given and the package ``cql2`` is missing.

    Examples
    --------
    >>> parse_filter('{"op": "isNull", "args": [{"property": "latent:psnr"}]}')["op"]
    'isNull'
    """
    if isinstance(text, Mapping):
        return dict(text)
    if not isinstance(text, str):
        raise SearchError(f"filter must be CQL2 text or CQL2 JSON (a dict), got {type(text).__name__}")
    if text.lstrip().startswith("{"):
        try:
            return dict(json.loads(text))
        except json.JSONDecodeError as exc:
            raise SearchError(
                f"filter is not valid JSON at line {exc.lineno}, column {exc.colno} ({exc.msg}): {text!r}"
            ) from exc
    try:
        import cql2
    except ImportError as exc:
        raise SearchError(
            "a filter in CQL2 text needs the package cql2: pip install 'stac-latent[search]', "
            "or give the filter as CQL2 JSON (a dict)"
        ) from exc
    try:
        return dict(cql2.parse_text(text).to_json())
    except Exception as exc:
        raise SearchError(f"filter is not valid CQL2 text:\n{exc}") from exc


def properties_of(expr: Any) -> set[str]:
    """Names of all properties that a CQL2 JSON expression reads."""
    if isinstance(expr, Mapping):
        if isinstance(name := expr.get("property"), str):
            return {name}
        expr = list(expr.values())
    if isinstance(expr, Sequence) and not isinstance(expr, str):
        return set().union(*(properties_of(e) for e in expr))
    return set()


def compared_with_numbers(expr: Any) -> set[str]:
    """Names of the properties that a CQL2 JSON expression compares with numbers."""
    if isinstance(expr, Mapping) and isinstance(parts := expr.get("args"), list):
        found = [compared_with_numbers(p) for p in parts]
        if expr.get("op") in ("=", "<>", "<", "<=", ">", ">=", "between") and any(
            _is_number(p) for p in parts
        ):
            found.append({p["property"].removeprefix("properties.") for p in parts if _is_property(p)})
        return set().union(*found)
    return set()


def _is_number(expr: Any) -> bool:
    return isinstance(expr, int | float) and not isinstance(expr, bool)


def _is_property(expr: Any) -> bool:
    return isinstance(expr, Mapping) and isinstance(expr.get("property"), str)


_LOGIC = ("and", "or", "not", "isNull")
_CASE = {name.lower(): name for name in (*STRICT, *_LOGIC)}


def compile_filter(expr: Any, where: str = "filter", depth: int = 0) -> Predicate:
    """Turn CQL2 JSON into a function of one item's properties.

    Parameters
    ----------
    expr : JSON
        A CQL2 JSON expression; ``where`` names it in errors, ``depth`` counts how deep it lies.

    Returns
    -------
    Predicate
        True, False, or None for unknown.

    Raises
    ------
    SearchError
        For an unknown operator, a wrong number of arguments, or a malformed literal; names the place in the tree.

    Examples
    --------
    >>> has = compile_filter({"op": ">=", "args": [{"property": "latent:psnr"}, 40]})
    >>> has({"latent:psnr": 41.5}.get), has({}.get)
    (True, None)
    """
    if depth > MAX_DEPTH:
        raise SearchError(
            f"filter nests deeper than {MAX_DEPTH} levels; use one AND or OR with many arguments"
        )
    if isinstance(expr, list):
        parts = [compile_filter(e, f"{where}[{i}]", depth + 1) for i, e in enumerate(expr)]
        return lambda row: [p(row) for p in parts]
    if not isinstance(expr, Mapping):
        return lambda _row: expr
    if isinstance(name := expr.get("property"), str):
        return lambda row: row(name)
    if "op" in expr:
        return _compile_operator(expr, where, depth)
    if isinstance(ends := expr.get("interval"), list) and len(ends) == 2:
        return compile_filter(ends, f"{where}.interval", depth + 1)
    value = _literal(expr, where)
    return lambda _row: value


def _compile_operator(expr: Mapping[str, Any], where: str, depth: int) -> Predicate:
    op, args = _CASE.get(str(expr["op"]).lower()), expr.get("args")
    if op is None:
        raise SearchError(
            f"{where}: unknown operator {expr['op']!r}; known are {', '.join((*_LOGIC, *STRICT))}"
        )
    count = STRICT[op][0] if op in STRICT else 1
    many = op in ("and", "or")
    if not isinstance(args, list) or len(args) < count or (len(args) > count and not many):
        raise SearchError(
            f"{where}: {op!r} needs a list of {count}{' or more' * many} args, got {json.dumps(args, default=str)}"
        )
    parts = [compile_filter(a, f"{where}.args[{i}]", depth + 1) for i, a in enumerate(args)]
    if op == "and":
        return lambda row: conjunction([p(row) for p in parts])
    if op == "or":
        return lambda row: disjunction([p(row) for p in parts])
    if op == "not":
        return lambda row: negation(parts[0](row))
    if op == "isNull":
        return lambda row: parts[0](row) is None
    function = STRICT[op][1]

    def call(row: Row) -> Any:
        values = [p(row) for p in parts]
        unknown = op not in ("between", "in") and any(v is None for v in values)
        return None if unknown else function(*values)

    return call


def _literal(expr: Mapping[str, Any], where: str) -> datetime | BaseGeometry:
    """Time or geometry that a JSON object stands for."""
    try:
        for key in ("timestamp", "date"):
            if key in expr:
                return parse_time(str(expr[key]))
        import shapely.geometry

        if "bbox" in expr:
            return shapely.geometry.box(*flat_bbox(expr["bbox"]))
        if "type" in expr:
            return shapely.geometry.shape(dict(expr))
    except Exception as exc:
        raise SearchError(f"{where}: {json.dumps(expr, default=str)} is no time or geometry: {exc}") from exc
    raise SearchError(
        f"{where}: expected an operator ('op' and 'args'), a property, a time, an interval or a geometry, "
        f"got {json.dumps(expr, default=str)[:200]}"
    )
