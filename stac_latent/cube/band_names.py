"""What bands may be called in a cube, and how errors list them."""

from __future__ import annotations

from collections.abc import Iterable

from stac_latent.errors import CatalogError

__all__ = ["RESERVED", "check_names", "label"]

RESERVED = ("x", "y", "longitude", "latitude", "time", "spatial_ref", "latent")
"""Names of a cube's coordinates, and of the variable of latents."""


def check_names(names: Iterable[str], owner: str) -> None:
    """Refuse bands that are called as a cube's coordinates are.

    Raises
    ------
    CatalogError
        If there are any; ``owner`` says whose they are.
    """
    if taken := [n for n in names if n in RESERVED]:
        raise CatalogError(
            f"{owner} has a band called {taken[0]!r}, as a coordinate or variable of every cube is: {', '.join(RESERVED)} are "
            f"reserved. Give the band another name when you encode: bands={{'name': {taken[0]!r}}} (--bands name={taken[0]})"
        )


def label(name: str, *others: str | None) -> str:
    """A band's name, and what else it is called: ``B04 (red)``.

    Examples
    --------
    >>> label("B04", "red", None), label("red", "red")
    ('B04 (red)', 'red')
    """
    more = [n for n in dict.fromkeys(others) if n and n != name]
    return f"{name} ({', '.join(more)})" if more else name
