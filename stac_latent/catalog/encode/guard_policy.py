"""The guard and the checks of one ``encode``: what the caller asked for, refusals and warnings by Item."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from stac_latent.codec.codec import Codec
from stac_latent.cube.write.monitor import POLICIES, Policy, QualityPolicy
from stac_latent.errors import CatalogError, GuardError, GuardWarning
from stac_latent.quality.checks import Check
from stac_latent.quality.ood_calibration import guards_of

__all__ = ["asked_of", "naming", "warn_of"]


def asked_of(
    codec: Codec,
    policy: Policy | None,
    checks: Sequence[str | Check],
    bound: float = 0.0,
    *,
    bounded: bool = False,
) -> QualityPolicy:
    """What to look at while an Item is verified.

    Raises
    ------
    CatalogError
        If there is no such policy, the codec has no calibration and a policy is named, or it has no pixels to check.
    CodecError
        If a check cannot be read.
    """
    if policy not in (None, *POLICIES):
        raise CatalogError(f"guard={policy!r}; expected {', '.join(map(repr, POLICIES))}")
    wanted = tuple(Check.of(c) for c in ([checks] if isinstance(checks, str) else checks))
    if wanted and codec.kind != "codec":
        raise CatalogError(f"codec {codec.name!r} is an embedder: it has no decoded pixels to check")
    if bound and policy != "fallback":
        raise CatalogError(
            f"fallback_bound={bound:g} is for guard='fallback' (--guard fallback) alone; give both, or error_bound= for every tile"
        )
    if policy == "off":
        return QualityPolicy("off", None, wanted)
    guards = guards_of(codec) if codec.kind == "codec" else None
    if guards is None and policy is not None:
        raise CatalogError(
            f"codec {codec.name!r} has no guard: it was never calibrated. 'stac-latent fit' calibrates what it fits; or pass "
            "guard='off' (--guard off)"
        )
    if policy == "fallback" and bounded:
        raise CatalogError(
            "error_bound keeps every tile within its bound already; leave it out, or guard='fallback' (--guard fallback)"
        )
    if not 0 <= bound < math.inf:
        raise CatalogError(
            f"fallback_bound={bound:g}; expected a number from 0 on in the stored unit, 0 for no error at all"
        )
    return QualityPolicy(policy or "warn", guards, wanted, float(bound))


@contextmanager
def naming(item: str) -> Iterator[None]:
    """Say which Item is refused."""
    try:
        yield
    except GuardError as exc:
        raise GuardError(
            f"item {item!r} is refused and was not catalogued: {exc}. Look at it; to have it all the same, encode it with another "
            "codec or rate, with guard='warn' (--guard warn), or without the check"
        ) from None


def warn_of(item: str, texts: Iterable[str], category: type[Warning] = GuardWarning) -> None:
    """One warning for each text, at the caller of ``encode``: beyond its loop and the check of its options."""
    for text in texts:
        warnings.warn(f"item {item!r}: {text}", category, stacklevel=5)
