"""Measurements among the properties of an Item: the best of its assets of kind ``codec``, each for itself.

They belong to latents alone. No asset inherits them: neither raw assets, nor latents that state none. What is lossless may have no
PSNR: its largest error is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

__all__ = ["BEST", "best_of", "is_number", "wrong_measurements"]

BEST: dict[str, Callable[[Iterable[float]], float]] = {
    "latent:bits_per_pixel": min,
    "latent:psnr": max,
    "latent:max_error": min,
    "latent:sam": min,
    "latent:error_bound": min,
    "latent:ood_score": min,
}
"""Which of its assets' measurements an Item has among its properties."""


def is_number(value: Any) -> bool:
    """Whether a field's value is a number, and not true or false."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def best_of(fields: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Measurements of an Item from the fields of its latent assets of kind ``codec``: of each the best, whichever asset has it.

    A limit of one of them then finds an Item by its properties where any of its assets is within it.

    Examples
    --------
    >>> best_of([{"latent:psnr": 48.1, "latent:bits_per_pixel": 0.7}, {"latent:psnr": 53.3, "latent:bits_per_pixel": 1.3}])
    {'latent:bits_per_pixel': 0.7, 'latent:psnr': 53.3}
    """
    listed = list(fields)
    known = {name: [f[name] for f in listed if is_number(f.get(name))] for name in BEST}
    return {name: BEST[name](values) for name, values in known.items() if values}


def wrong_measurements(
    properties: Mapping[str, Any], assets: Iterable[Mapping[str, Any]]
) -> Iterator[tuple[str, str]]:
    """Properties of an Item that are not the best of its assets of kind ``codec``: name, and what is wrong.

    Examples
    --------
    >>> list(wrong_measurements({"latent:psnr": 50}, [{"latent:kind": "codec", "latent:psnr": 48.1}]))
    [('latent:psnr', "50 is not the best of the assets of kind 'codec', which is 48.1")]
    """
    best = best_of(a for a in assets if a.get("latent:kind") == "codec")
    for name in BEST:
        given = properties.get(name)
        if given is not None and given != best.get(name):
            which = f"which is {best[name]}" if name in best else "of which none has it"
            yield name, f"{given} is not the best of the assets of kind 'codec', {which}"
