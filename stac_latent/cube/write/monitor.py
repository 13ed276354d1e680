"""What each decoded tile is judged by while a store is verified: the guard's score, and the checks' metrics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np

from stac_latent.aliases import Array
from stac_latent.codec.codec import Codec
from stac_latent.cube.read.reader import LatentReader
from stac_latent.errors import CatalogError
from stac_latent.quality.checks import Check, Checks
from stac_latent.quality.ood_calibration import full_cells, guards_of, observe
from stac_latent.quality.ood_score import Guard, Score, scene_score
from stac_latent.system.suggest import did_you_mean
from stac_latent.window import Window

__all__ = ["POLICIES", "Policy", "QualityMonitor", "QualityPolicy", "findings", "refusals"]

Policy = Literal["warn", "fallback", "refuse", "off"]
POLICIES: tuple[Policy, ...] = ("warn", "fallback", "refuse", "off")


@dataclass(frozen=True)
class QualityPolicy:
    """What decoded tiles are judged by, and what follows from it; without guards and checks nobody looks.

    Parameters
    ----------
    policy
        What to do about a score above 1.
    guards
        Calibration of each lattice; None for no scores.
    checks
        To be kept by the decoded pixels.
    """

    policy: Policy = "off"
    guards: Sequence[Guard] | None = None
    checks: Sequence[Check] = ()
    bound: float = 0.0
    """Largest error of flagged tiles under the policy ``fallback``, stored unit."""
    named: bool = False
    """Whether the caller named the policy: then a codec without a calibration is refused."""

    @classmethod
    def from_options(
        cls,
        codec: Codec,
        guard: Policy | None,
        checks: Sequence[str | Check],
        fallback_bound: float = 0.0,
        *,
        bounded: bool = False,
    ) -> Self:
        """The policy that a caller's options state for a codec.

        Parameters
        ----------
        codec
            May have a calibration.
        guard, checks, fallback_bound
            See :func:`stac_latent.encode`.
        bounded
            Whether every pixel keeps an error bound already.

        Raises
        ------
        CatalogError
            If there is no such policy, the codec has no calibration and a policy is named, or it has no pixels to check.
        CodecError
            If a check cannot be read, or measures real numbers and the bands are complex.
        """
        if guard not in (None, *POLICIES):
            meant = did_you_mean(str(guard), POLICIES)
            raise CatalogError(f"guard={guard!r}{meant}; expected {', '.join(map(repr, POLICIES))}")
        wanted = tuple(Check.of(c) for c in ([checks] if isinstance(checks, str) else checks))
        if wanted and codec.kind != "codec":
            raise CatalogError(f"codec {codec.name!r} is an embedder: it has no decoded pixels to check")
        for check in wanted:
            check.check_bands(codec.bands)
        if fallback_bound and guard != "fallback":
            raise CatalogError(
                f"fallback_bound={fallback_bound:g} is for guard='fallback' (--guard fallback) alone; give both, or error_bound= for "
                "every tile"
            )
        if guard == "off":
            return cls("off", None, wanted, named=True)
        guards = guards_of(codec) if codec.kind == "codec" else None
        if guards is None and guard is not None:
            raise CatalogError(
                f"codec {codec.name!r} has no guard: it was never calibrated. 'stac-latent fit' calibrates what it fits; or pass "
                "guard='off' (--guard off)"
            )
        if guard == "fallback" and bounded:
            raise CatalogError(
                "error_bound keeps every tile within its bound already; leave it out, or guard='fallback' (--guard fallback)"
            )
        if not 0 <= fallback_bound < math.inf:
            raise CatalogError(
                f"fallback_bound={fallback_bound:g}; expected a number from 0 on in the stored unit, 0 for no error at all"
            )
        return cls(guard or "warn", guards, wanted, float(fallback_bound), guard is not None)

    def for_codec(self, codec: Codec) -> Self:
        """The same policy with the calibration of another codec; errors as of :meth:`from_options`."""
        return self.from_options(codec, self.policy if self.named else None, self.checks, self.bound)

    def fingerprint(self) -> dict[str, Any]:
        """What decides the outcome, as JSON; nothing where nobody looks."""
        guard = {} if self.guards is None else {"guard": [self.policy, self.bound]}
        return guard | ({"checks": [str(c) for c in self.checks]} if self.checks else {})

    def monitors(self, codecs: Sequence[Codec], *, judge: bool = True) -> list[QualityMonitor]:
        """One for each lattice, without its guard where it does not ``judge``; they share the checks."""
        shared = Checks(self.checks)
        guards = [None] * len(codecs) if self.guards is None or not judge else self.guards
        return [QualityMonitor(c, g, shared) for c, g in zip(codecs, guards, strict=True)]


@dataclass
class QualityMonitor:
    """Scores and checks the tiles of one lattice, as they are verified.

    Parameters
    ----------
    codec
        Of the lattice.
    guard
        Its calibration; None for no scores.
    checks
        Shared by the lattices of an asset.
    """

    codec: Codec
    guard: Guard | None
    checks: Checks
    scores: dict[tuple[int, int], Score] = field(default_factory=dict)
    """By the numbers of the tile along y and x."""

    def add(
        self, reader: LatentReader, cells: Window, symbols: Array, pair: tuple[Array, Array], valid: Array, sse: Array,
        count: Array,
    ) -> None:  # fmt: skip
        """Judge one stored chunk.

        Parameters
        ----------
        reader
            Of the store.
        cells
            Of the chunk.
        symbols
            As they decode.
        pair
            Truth and decoded field of the pixels inside the scene, stored unit.
        valid
            Theirs, ``(1 or band, y, x)``.
        sse, count
            Sum of squared errors and valid pixels of each band of this chunk alone.
        """
        self.checks.add(*pair, valid, reader.spec.bands, self.codec.native_pixels)
        if self.guard is None:
            return
        _, rows, columns = reader.arrays.latent.chunks
        place = (cells.y.start // rows, cells.x.start // columns)
        latent = reader.spec.quantization.dequantise(symbols)
        complete = full_cells(_padded(valid, cells, reader), self.codec.stride)
        observation = observe(
            self.codec, self.guard.units, latent, complete, sse, count, _payload(reader, place), exact=reader.bounded
        )  # fmt: skip
        self.scores[place] = self.guard.score(observation)

    @property
    def flagged(self) -> set[tuple[int, int]]:
        """Tiles that score above 1."""
        return {place for place, s in self.scores.items() if s.flagged}

    @property
    def grid(self) -> Array:
        """Score and measures of each tile, float64 ``(4, tile_y, tile_x)``; NaN where not judged."""
        shape = [1 + max(place[i] for place in self.scores) for i in (0, 1)]
        out = np.full((4, *shape), np.nan)
        for (y, x), s in self.scores.items():
            out[:, y, x] = s.score, s.rate, s.latent, s.error
        return out


def findings(monitors: Sequence[QualityMonitor]) -> dict[str, Any]:
    """``latent:`` fields of an asset: its score, how many tiles are flagged, the checks and their values."""
    out: dict[str, Any] = {}
    judged = [m for m in monitors if m.guard is not None and m.scores]
    scores = [scene_score(m.grid[0].ravel(), m.guard.share) for m in judged if m.guard is not None]
    numbers = [s for s in scores if not math.isnan(s)]
    if numbers:
        out |= {
            "latent:ood_score": min(float(f"{max(numbers):.4g}"), 1e9),
            "latent:ood_tiles": sum(len(m.flagged) for m in judged),
        }
    checks = monitors[0].checks
    values = [(c, v) for c, v in zip(checks.checks, checks.values(), strict=True) if v is not None]
    if values:
        out |= {
            "latent:checks": [str(c) for c, _ in values],
            "latent:check_values": [float(v) for _, v in values],
        }
    return out


def refusals(
    monitors: Sequence[QualityMonitor], fields: dict[str, Any], policy: Policy
) -> tuple[list[str], bool]:
    """What is unusual about an asset, in words, and whether it is to be refused."""
    texts, refuse = [], False
    if (score := fields.get("latent:ood_score", 0)) > 1:
        n, of = fields["latent:ood_tiles"], sum(len(m.scores) for m in monitors)
        share = next(m.guard.share for m in monitors if m.guard is not None)
        texts.append(
            f"it is unlike what the codec was calibrated on: score {score:g} (1 is the edge that {100 * share:g} % of such tiles keep), "
            f"{n} of {of} tile(s) flagged, most for their {_cause(monitors)}"
        )
        if (bound := fields.get("latent:fallback_bound")) is not None:
            texts[-1] += f"; these are kept within an error of {bound:g}"
        refuse = policy == "refuse"
    for check, value in monitors[0].checks.failed():
        texts.append(f"check {_plain(check)} is missed: {check.name} is {value:.5g}")
        refuse |= check.action == "refuse"
    return texts, refuse


def _cause(monitors: Sequence[QualityMonitor]) -> str:
    """Which measure flags most tiles."""
    names = {"rate": "rate", "latent": "latents", "error": "error"}
    flagged = [s for m in monitors for s in m.scores.values() if s.flagged]
    counts = {k: sum(getattr(s, k) == s.score for s in flagged) for k in names}
    return names[max(counts, key=lambda k: counts[k])]


def _plain(check: Check) -> str:
    return str(check).rpartition(":")[0]


def _payload(reader: LatentReader, place: tuple[int, int]) -> bytes | None:
    """Stored bytes of a chunk; None where they tell nothing of its own rate."""
    payloads, reference = reader.arrays.payloads, reader.reference
    if payloads is None or (reference is not None and reference.refers(*place)):
        return None
    return payloads.read(*place)


def _padded(valid: Array, cells: Window, reader: LatentReader) -> Array:
    """Valid pixels of whole cells, those beyond the scene as holes."""
    grid = reader.grid
    spans = zip(cells, grid.stride, grid.lead, grid.shape, strict=True)
    pads = [(max(0, p - lo * s), max(0, hi * s - p - n)) for (lo, hi), s, p, n in spans]
    return np.pad(valid, [(0, 0), *pads]) if any(map(any, pads)) else valid
