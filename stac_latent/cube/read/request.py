"""What is asked of ``load``: which values, where, and how they are to be read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from stac_latent.cube.asset_choice import Upto, check_upto
from stac_latent.cube.grid.areas import Area
from stac_latent.cube.grid.fusing import Fuse
from stac_latent.cube.grid.mosaic import Execution
from stac_latent.cube.ref import LatentRef
from stac_latent.errors import CatalogError
from stac_latent.net.answers import connections
from stac_latent.system.links import is_remote

__all__ = ["LoadRequest", "PerBand", "Selection"]

PerBand = str | Mapping[str, str] | None
"""One for all bands, or by the name of the band."""


@dataclass(frozen=True, eq=False)
class Selection:
    """Which values of the Items, by the names of :func:`stac_latent.load`."""

    bands: str | Sequence[str] | None = None
    asset: str | None = None
    upto: Upto = "field"
    resampling: PerBand = None
    dtype: Any = None
    nodata: float | None = None
    physical: bool = False
    fuse_func: Fuse = None

    def check(self) -> None:
        """Refuse ways to resample and types that are none, with :class:`CatalogError`."""
        ways = self.resampling.values() if isinstance(self.resampling, Mapping) else [self.resampling]
        if wrong := [w for w in ways if w is not None and not isinstance(w, str)]:
            raise CatalogError(
                f"resampling={wrong[0]!r:.100} is no text; expected such as 'bilinear', for all bands or by band"
            )
        for dtype in self.dtype.values() if isinstance(self.dtype, Mapping) else [self.dtype]:
            try:
                sound = dtype is None or np.dtype(dtype).kind in "iufc"
            except TypeError:
                sound = False
            if not sound:
                raise CatalogError(f"dtype={dtype!r:.100} is no type of numbers; expected such as 'float32'")
        if self.nodata is not None and np.asarray(self.nodata).dtype.kind not in "iufc":
            raise CatalogError(f"nodata={self.nodata!r:.100} is no number")

    def check_latents(self, **others: object) -> None:
        """Refuse what only pixels have where latents are asked for; ``others`` are more of that kind.

        Raises
        ------
        CatalogError
            If any was given; all are named.
        """
        pixels = {
            "dtype": self.dtype,
            "nodata": self.nodata,
            "physical": self.physical or None,
            "fuse_func": self.fuse_func,
        }
        check_upto(self.upto, self.bands, {**others, **pixels})


def _is_chunk(size: object) -> bool:
    whole = size if isinstance(size, tuple) else (size,)
    return size in ("auto", None) or all(
        isinstance(n, int | np.integer) and (n > 0 or n == -1) for n in whole
    )


@dataclass(frozen=True, eq=False)
class LoadRequest:
    """A load, but for the Items."""

    selection: Selection
    area: Area
    execution: Execution
    patch_url: Callable[[str], str] | None = None
    stac_cfg: dict[str, Any] | None = None
    """How raw assets are understood, as ``odc.stac.load`` has it."""

    def check(self) -> None:
        """Refuse what is wrong whatever the Items are.

        Raises
        ------
        CatalogError
            If the level is unknown, bands of latents are asked for, or an argument is of another kind.
        GridError
            If two arguments of the grid contradict.
        """
        check_upto(self.selection.upto, self.selection.bands)
        self.selection.check()
        self.area.check()
        chunks, pool = self.execution.chunks, self.execution.pool
        if chunks is not None and not (isinstance(chunks, Mapping) and all(map(_is_chunk, chunks.values()))):
            raise CatalogError(
                f"chunks={chunks!r:.100} is no cutting; expected sizes by dimension, such as {{'x': 1024, 'y': 1024}}, -1 for all or 'auto'"
            )
        if pool is not None and (isinstance(pool, bool) or not isinstance(pool, int | Executor)):
            raise CatalogError(f"pool={pool!r:.100} is no number of threads, and no executor")

    def with_pool(self, refs: Sequence[LatentRef]) -> Self:
        """The same, with threads for several remote Items that are loaded at once, where nothing was said of them."""
        given = self.execution
        if given.pool is not None or given.chunks is not None or len(refs) < 2:
            return self
        if not any(is_remote(ref.href) for ref in refs):
            return self
        return replace(self, execution=replace(given, pool=min(len(refs), connections())))
