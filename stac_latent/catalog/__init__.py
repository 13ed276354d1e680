"""Authoring, searching and publishing of STAC catalogues that hold latents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stac_latent.system.exports import lazy

if TYPE_CHECKING:
    from stac_latent.catalog.adopt.emb_export import export_emb as export_emb
    from stac_latent.catalog.adopt.products import Product as Product
    from stac_latent.catalog.adopt.products import open_product as open_product
    from stac_latent.catalog.adopt.products import product_names as product_names
    from stac_latent.catalog.cost import CostConstants as CostConstants
    from stac_latent.catalog.coverage.coverage import Coverage as Coverage
    from stac_latent.catalog.coverage.vectors import vector_shares as vector_shares
    from stac_latent.catalog.encode.messages import ItemOutcome as ItemOutcome
    from stac_latent.catalog.files.sensors import sensor_names as sensor_names
    from stac_latent.catalog.push.push import Pushed as Pushed
    from stac_latent.catalog.push.queryables import queryables as queryables
    from stac_latent.catalog.sample import sample_item as sample_item
    from stac_latent.catalog.search.search import Results as Results
    from stac_latent.catalog.search.stac_geoparquet import to_geoparquet as to_geoparquet
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
            "adopt.emb_export": ["export_emb"],
            "adopt.products": ["Product", "open_product", "product_names"],
            "cost": ["CostConstants"],
            "coverage.coverage": ["Coverage"],
            "coverage.vectors": ["vector_shares"],
            "encode.messages": ["ItemOutcome"],
            "files.sensors": ["sensor_names"],
            "push.push": ["Pushed"],
            "push.queryables": ["queryables"],
            "sample": ["sample_item"],
            "search.search": ["Results"],
            "search.stac_geoparquet": ["to_geoparquet"],
        },
    )
