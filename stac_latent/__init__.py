"""Neural and classical latents in STAC: encode, catalogue, search, load and publish compressed imagery.

The verbs are imported when they are first used, so that ``import stac_latent`` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stac_latent.catalog.adopt.adopt import adopt as adopt
    from stac_latent.catalog.adopt.load_table import load_table as load_table
    from stac_latent.catalog.coverage.coverage import coverage as coverage
    from stac_latent.catalog.encode.encode import encode as encode
    from stac_latent.catalog.publish.publish import publish as publish
    from stac_latent.catalog.push.push import push as push
    from stac_latent.catalog.search.search import search as search
    from stac_latent.chain import open_codec as open_codec
    from stac_latent.cube.read.load import load as load
    from stac_latent.fitting.items import fit as fit
    from stac_latent.index.label import label as label
    from stac_latent.index.nearest import nearest as nearest
    from stac_latent.page.explore import explore as explore
    from stac_latent.page.write import write_map as write_map

__all__ = [
    "adopt",
    "coverage",
    "encode",
    "explore",
    "fit",
    "label",
    "load",
    "load_table",
    "nearest",
    "open_codec",
    "publish",
    "push",
    "search",
    "write_map",
]
__version__ = "0.1.0"

_WHERE = {
    "adopt": "stac_latent.catalog.adopt.adopt",
    "coverage": "stac_latent.catalog.coverage.coverage",
    "encode": "stac_latent.catalog.encode.encode",
    "explore": "stac_latent.page.explore",
    "fit": "stac_latent.fitting.items",
    "label": "stac_latent.index.label",
    "load": "stac_latent.cube.read.load",
    "load_table": "stac_latent.catalog.adopt.load_table",
    "nearest": "stac_latent.index.nearest",
    "open_codec": "stac_latent.chain",
    "publish": "stac_latent.catalog.publish.publish",
    "push": "stac_latent.catalog.push.push",
    "search": "stac_latent.catalog.search.search",
    "write_map": "stac_latent.page.write",
}


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE])
