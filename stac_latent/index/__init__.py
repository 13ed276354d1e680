"""Similar places: searching published vectors by vector, place, Item, chip or area."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stac_latent.system.exports import lazy

if TYPE_CHECKING:
    from stac_latent.index.export import to_lancedb as to_lancedb
    from stac_latent.index.export import to_pgvector as to_pgvector
    from stac_latent.index.ivf import build_index as build_index
    from stac_latent.index.table import open_table as open_table
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
            "export": ["to_lancedb", "to_pgvector"],
            "ivf": ["build_index"],
            "table": ["open_table"],
        },
    )
