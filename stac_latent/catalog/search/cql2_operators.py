"""The operators of CQL2 on values of an item, each unknown (None) where its arguments have no common meaning."""

from __future__ import annotations

import functools
import math
import operator
import re
import unicodedata
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

__all__ = ["STRICT", "conjunction", "disjunction", "negation", "parse_time"]

_BEGIN = datetime.min.replace(tzinfo=UTC)
_END = datetime.max.replace(tzinfo=UTC)


def parse_time(text: str) -> datetime:
    """Aware UTC datetime of an RFC 3339 time or date; without a zone it is UTC; ValueError where it is neither."""
    if not re.match(r"\d{4}-\d{2}-\d{2}($|[Tt ])", text):
        raise ValueError(f"not an RFC 3339 time: {text!r}")
    value = datetime.fromisoformat(text.upper())
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _comparable(a: Any, b: Any) -> tuple[Any, Any] | None:
    """Both values in one type that can be ordered, or None where SQL would find no such type."""
    if isinstance(a, datetime) or isinstance(b, datetime):
        try:
            return tuple(parse_time(v) if isinstance(v, str) else v.astimezone(UTC) for v in (a, b))  # type: ignore[return-value]
        except (AttributeError, ValueError):
            return None
    for kind in (bool, (int, float), str):
        if isinstance(a, kind):
            same = isinstance(b, kind) and isinstance(a, bool) == isinstance(b, bool)
            nan = any(isinstance(v, float) and math.isnan(v) for v in (a, b))
            return (a, b) if same and not nan else None
    return None


def _compare(test: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool | None]:
    def compare(a: Any, b: Any) -> bool | None:
        pair = _comparable(a, b)
        return None if pair is None else test(*pair)

    return compare


_equal = _compare(operator.eq)


def _number(test: Callable[[Any, Any], Any]) -> Callable[[Any, Any], float | None]:
    def calculate(a: Any, b: Any) -> float | None:
        if any(isinstance(v, bool) or not isinstance(v, int | float) for v in (a, b)):
            return None
        try:
            value = test(a, b)
        except (ArithmeticError, ValueError):
            return None
        return value if isinstance(value, int | float) else None

    return calculate


@functools.lru_cache(maxsize=256)
def _like_regex(pattern: str) -> re.Pattern[str]:
    parts = re.findall(r"\\.|[%_]|[^\\%_]+|\\$", pattern, flags=re.DOTALL)
    regex = "".join(
        {"%": ".*", "_": "."}.get(p) or re.escape(p[1:] if len(p) == 2 and p[0] == "\\" else p) for p in parts
    )
    return re.compile(regex, flags=re.DOTALL)


def _like(value: Any, pattern: Any) -> bool | None:
    if not isinstance(value, str) or not isinstance(pattern, str):
        return None
    return _like_regex(pattern).fullmatch(value) is not None


def _between(value: Any, low: Any, high: Any) -> bool | None:
    return conjunction((_compare(operator.ge)(value, low), _compare(operator.le)(value, high)))


def _accenti(value: Any) -> str | None:
    if not isinstance(value, str):
        return None
    return "".join(c for c in unicodedata.normalize("NFKD", value) if not unicodedata.combining(c))


def conjunction(values: Sequence[Any]) -> bool | None:
    """AND of three-valued logic."""
    if any(v is False for v in values):
        return False
    return True if all(v is True for v in values) else None


def disjunction(values: Sequence[Any]) -> bool | None:
    """OR of three-valued logic."""
    if any(v is True for v in values):
        return True
    return False if all(v is False for v in values) else None


def negation(value: Any) -> bool | None:
    """NOT of three-valued logic; unknown for what is no truth value."""
    return (not value) if isinstance(value, bool) else None


def _in(value: Any, choices: Any) -> bool | None:
    return disjunction([_equal(value, c) for c in choices]) if isinstance(choices, list) else None


def _sets(test: Callable[[list[Any], list[Any]], bool]) -> Callable[[Any, Any], bool | None]:
    def compare(a: Any, b: Any) -> bool | None:
        return test(a, b) if isinstance(a, list) and isinstance(b, list) else None

    return compare


def _has_all(a: list[Any], b: list[Any]) -> bool:
    return all(v in a for v in b)


def _space(name: str) -> Callable[[Any, Any], bool | None]:
    def compare(a: Any, b: Any) -> bool | None:
        if not hasattr(a, "geom_type") or not hasattr(b, "geom_type"):
            return None
        return bool(getattr(a, name)(b))

    return compare


def _period(value: Any) -> tuple[datetime, datetime] | None:
    """Begin and end of an instant or an interval; None where it is neither."""
    ends = value if isinstance(value, list) else [value, value]
    out = []
    for end, open_end in zip(ends, (_BEGIN, _END), strict=True):
        try:
            time = open_end if end == ".." else parse_time(end) if isinstance(end, str) else end
        except ValueError:
            return None
        if not isinstance(time, datetime):
            return None
        out.append(time)
    return out[0], out[1]


def _time(test: Callable[[Any, Any, Any, Any], bool]) -> Callable[[Any, Any], bool | None]:
    def compare(a: Any, b: Any) -> bool | None:
        p, q = _period(a), _period(b)
        return None if p is None or q is None else test(*p, *q)

    return compare


STRICT: dict[str, tuple[int, Callable[..., Any]]] = {
    "=": (2, _equal),
    "<>": (2, _compare(operator.ne)),
    "<": (2, _compare(operator.lt)),
    "<=": (2, _compare(operator.le)),
    ">": (2, _compare(operator.gt)),
    ">=": (2, _compare(operator.ge)),
    "+": (2, _number(operator.add)),
    "-": (2, _number(operator.sub)),
    "*": (2, _number(operator.mul)),
    "/": (2, _number(operator.truediv)),
    "div": (2, _number(lambda a, b: math.trunc(a / b))),
    "%": (2, _number(math.fmod)),
    "^": (2, _number(operator.pow)),
    "like": (2, _like),
    "between": (3, _between),
    "in": (2, _in),
    "casei": (1, lambda a: a.lower() if isinstance(a, str) else None),
    "accenti": (1, _accenti),
    "a_contains": (2, _sets(_has_all)),
    "a_containedBy": (2, _sets(lambda a, b: _has_all(b, a))),
    "a_equals": (2, _sets(operator.eq)),
    "a_overlaps": (2, _sets(lambda a, b: any(v in b for v in a))),
    **{
        f"s_{name}": (2, _space(name))
        for name in (
            "intersects",
            "contains",
            "within",
            "disjoint",
            "touches",
            "crosses",
            "overlaps",
            "equals",
        )
    },
    "t_after": (2, _time(lambda a0, _a1, _b0, b1: a0 > b1)),
    "t_before": (2, _time(lambda _a0, a1, b0, _b1: a1 < b0)),
    "t_contains": (2, _time(lambda a0, a1, b0, b1: a0 < b0 and a1 > b1)),
    "t_disjoint": (2, _time(lambda a0, a1, b0, b1: a0 > b1 or a1 < b0)),
    "t_during": (2, _time(lambda a0, a1, b0, b1: a0 > b0 and a1 < b1)),
    "t_equals": (2, _time(lambda a0, a1, b0, b1: a0 == b0 and a1 == b1)),
    "t_finishedBy": (2, _time(lambda a0, a1, b0, b1: a0 < b0 and a1 == b1)),
    "t_finishes": (2, _time(lambda a0, a1, b0, b1: a0 > b0 and a1 == b1)),
    "t_intersects": (2, _time(lambda a0, a1, b0, b1: a0 <= b1 and a1 >= b0)),
    "t_meets": (2, _time(lambda _a0, a1, b0, _b1: a1 == b0)),
    "t_metBy": (2, _time(lambda a0, _a1, _b0, b1: a0 == b1)),
    "t_overlappedBy": (2, _time(lambda a0, a1, b0, b1: b0 < a0 < b1 < a1)),
    "t_overlaps": (2, _time(lambda a0, a1, b0, b1: a0 < b0 < a1 < b1)),
    "t_startedBy": (2, _time(lambda a0, a1, b0, b1: a0 == b0 and a1 > b1)),
    "t_starts": (2, _time(lambda a0, a1, b0, b1: a0 == b0 and a1 < b1)),
}
"""Operators that are unknown where an argument is null: number of arguments, and what they do."""
