"""Neural and classical latents in STAC: encode, catalogue, search, load and publish compressed imagery.

The verbs are imported when they are first used, so that ``import stac_latent`` stays light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stac_latent.system.exports import lazy

__version__ = "0.1.0"

if TYPE_CHECKING:
    from stac_latent.arrays.zarr_codec import Latent as Latent
    from stac_latent.catalog.adopt.adopt import adopt as adopt
    from stac_latent.catalog.adopt.load_table import load_table as load_table
    from stac_latent.catalog.cost import cost as cost
    from stac_latent.catalog.coverage.coverage import coverage as coverage
    from stac_latent.catalog.encode.encode import encode as encode
    from stac_latent.catalog.files.items import items_from_files as items_from_files
    from stac_latent.catalog.on_demand import on_demand as on_demand
    from stac_latent.catalog.place.minicube import minicube as minicube
    from stac_latent.catalog.place.points import points as points
    from stac_latent.catalog.publish.publish import publish as publish
    from stac_latent.catalog.push.push import push as push
    from stac_latent.catalog.search.search import search as search
    from stac_latent.catalog.verify import verify as verify
    from stac_latent.cube.open_codec import open_codec as open_codec
    from stac_latent.cube.read.load import load as load
    from stac_latent.cube.save.save import save as save
    from stac_latent.fitting.embedder import embedder as embedder
    from stac_latent.fitting.items import fit as fit
    from stac_latent.index.label import label as label
    from stac_latent.index.nearest import nearest as nearest
    from stac_latent.page.explore import explore as explore
    from stac_latent.page.live import write_live_map as write_live_map
    from stac_latent.page.write import write_map as write_map
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
            "arrays.zarr_codec": ["Latent"],
            "catalog.adopt.adopt": ["adopt"],
            "catalog.adopt.load_table": ["load_table"],
            "catalog.cost": ["cost"],
            "catalog.coverage.coverage": ["coverage"],
            "catalog.encode.encode": ["encode"],
            "catalog.on_demand": ["on_demand"],
            "catalog.place.minicube": ["minicube"],
            "catalog.files.items": ["items_from_files"],
            "catalog.place.points": ["points"],
            "catalog.publish.publish": ["publish"],
            "catalog.push.push": ["push"],
            "catalog.search.search": ["search"],
            "catalog.verify": ["verify"],
            "cube.open_codec": ["open_codec"],
            "cube.read.load": ["load"],
            "cube.save.save": ["save"],
            "fitting.embedder": ["embedder"],
            "fitting.items": ["fit"],
            "index.label": ["label"],
            "index.nearest": ["nearest"],
            "page.explore": ["explore"],
            "page.live": ["write_live_map"],
            "page.write": ["write_map"],
        },
    )
