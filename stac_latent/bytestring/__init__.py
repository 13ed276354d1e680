"""Fields as self-contained byte strings, and back: one grid, several grids, within an error bound."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stac_latent.system.exports import lazy

if TYPE_CHECKING:
    from stac_latent.bytestring.grid_families import families as families
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
            "grid_families": ["families"],
        },
    )
