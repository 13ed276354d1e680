"""Fields as typed attributes: read from and written to a dictionary of STAC fields, checked both ways."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, Self, TypeVar, overload

from stac_latent.errors import CatalogError

__all__ = [
    "KIND",
    "METHOD",
    "PREFIX",
    "Field",
    "integer",
    "list_of",
    "number",
    "one_of",
    "optional",
    "text",
]

PREFIX = "latent:"

T = TypeVar("T")


class HasProperties(Protocol):
    """Anything that keeps its fields in a dictionary."""

    properties: dict[str, Any]


def number(value: Any) -> float:
    """Finite number; JSON has no other."""
    if isinstance(value, (bool, str)) or not math.isfinite(value):
        raise ValueError("expected a finite number")
    return float(value)


def integer(value: Any) -> int:
    """Whole number, also where it comes back from a table as 3.0."""
    if number(value) != int(value):
        raise ValueError("expected an integer")
    return int(value)


def text(value: Any) -> str:
    """Return a string, and nothing else as one."""
    if not isinstance(value, str):
        raise TypeError("expected a string")
    return str(value)


def one_of(*names: str) -> Callable[[Any], Any]:
    """Make a reader of one of the names."""

    def read(value: Any) -> str:
        if value not in names:
            raise ValueError(f"expected one of {', '.join(names)}")
        return text(value)

    return read


def optional(read: Callable[[Any], T]) -> Callable[[Any], T | None]:
    """Make a reader of null besides."""
    return lambda value: None if value is None else read(value)


def list_of(read: Callable[[Any], T], length: int | None = None) -> Callable[[Any], list[T]]:
    """Make a reader of a list (of ``length`` values, if given); a string is no list."""

    def read_all(values: Any) -> list[T]:
        if isinstance(values, (str, Mapping)) or (length is not None and len(values) != length):
            raise ValueError(f"expected a list{'' if length is None else f' of {length} values'}")
        return [read(v) for v in values]

    return read_all


KIND = one_of("codec", "embedding")
METHOD = one_of("none", "linear", "power", "per_vector", "round")


class Field(Generic[T]):
    """One ``latent:`` field as a typed attribute; values are checked when read and when written."""

    def __init__(self, read: Callable[[Any], T], doc: str) -> None:
        self.read = read
        self.__doc__ = doc

    def __set_name__(self, owner: type, name: str) -> None:
        self.key = PREFIX + name

    @overload
    def __get__(self, obj: None, owner: type) -> Self: ...
    @overload
    def __get__(self, obj: HasProperties, owner: type) -> T | None: ...
    def __get__(self, obj: HasProperties | None, owner: type) -> Self | T | None:
        if obj is None:
            return self
        value = obj.properties.get(self.key)
        return None if value is None else self.checked(value)

    def __set__(self, obj: HasProperties, value: T | None) -> None:
        if value is None:
            obj.properties.pop(self.key, None)
        else:
            obj.properties[self.key] = self.checked(value)

    def checked(self, value: Any) -> T:
        """Value as the field's type.

        Raises
        ------
        CatalogError
            If it does not fit; the message says the field, the value and what was expected.
        """
        try:
            return self.read(value)
        except (TypeError, ValueError, OverflowError) as exc:
            raise CatalogError(f"{self.key} is {value!r}: {exc} ({self.__doc__})") from exc
