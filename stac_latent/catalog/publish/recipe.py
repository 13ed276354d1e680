"""What publishing does to vectors, and the space that this makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from stac_latent.catalog.publish.rows import Pool
from stac_latent.errors import CatalogError
from stac_latent.spec import Spec, Stats
from stac_latent.system.digests import canonical_json, digest

__all__ = ["Recipe"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """From latents of one space to published vectors: standardised or not, all channels or some.

    Equal spaces must mean comparable vectors. So vectors that are the source's own, or means of them, keep the
    source's space; everything else gets the digest of the source's space and of what was done.

    Examples
    --------
    >>> spec = Spec("codec", "sha256:" + 64 * "0", 4, (8, 8), (0, 0))
    >>> Recipe.of(spec, channels=2).apply(np.array([[1.0, 2.0, 3.0, 4.0]], np.float32)).tolist()
    [[1.0, 2.0]]
    >>> Recipe.of(spec).space == spec.space, Recipe.of(spec, channels=2).space == spec.space
    (True, False)
    """

    source_space: str
    dimensions: int
    """Channels of the published vectors."""
    stats: Stats | None = None
    channels: tuple[int, ...] | None = None
    pool: Pool = "mean"

    @classmethod
    def of(
        cls,
        spec: Spec,
        stats: Stats | None = None,
        channels: int | Sequence[int] | None = None,
        pool: Pool = "mean",
    ) -> Self:
        """Recipe for latents of ``spec``; an integer takes the first so many channels.

        Raises
        ------
        CatalogError
            If a channel does not exist or comes twice, or the statistics are of other channels.
        """
        n = spec.dimensions
        if stats is not None and len(stats.mean) != n:
            raise CatalogError(
                f"the codec's statistics are of {len(stats.mean)} channels, the latent has {n}"
            )
        kept = tuple(range(channels)) if isinstance(channels, int) else channels
        if kept is None or tuple(kept) == tuple(range(n)):
            return cls(spec.space, n, stats, None, pool)
        kept = tuple(int(c) for c in kept)
        if not kept or len(set(kept)) < len(kept) or min(kept) < 0 or max(kept) >= n:
            raise CatalogError(
                f"channels={channels!r} cannot be taken from {n}; give how many of the first, or different positions "
                f"from 0 to {n - 1}"
            )
        return cls(spec.space, len(kept), stats, kept, pool)

    @property
    def space(self) -> str:
        """Digest of the published vectors' space."""
        changed = {k: v for k, v in self.to_dict().items() if k != "source_space"}
        if self.pool != "mean":
            changed["pool"] = self.pool
        if not changed:
            return self.source_space
        return digest(canonical_json({"source_space": self.source_space} | changed))

    def apply(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(n, source channels) to (n, dimensions), float32."""
        if self.stats is not None:
            values = self.stats.standardise(values, axis=1)
        return values if self.channels is None else np.ascontiguousarray(values[:, self.channels])

    def to_dict(self) -> dict[str, Any]:
        """JSON object: how a query vector is made from a latent of the source space."""
        out: dict[str, Any] = {"source_space": self.source_space}
        if self.stats is not None:
            out |= {"mean": list(self.stats.mean), "std": list(self.stats.std)}
        if self.channels is not None:
            out["channels"] = list(self.channels)
        return out
