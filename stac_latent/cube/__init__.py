"""Cubes: latents from STAC Items to xarray, decoded onto any grid or as they are on their lattice.

``LatentDriver`` is the odc-loader driver; it is imported when first asked for, so that this package stays light::

    odc.stac.load(items, bands=["B04"], driver="stac_latent.cube.LatentDriver")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stac_latent.cube.read.driver import LatentDriver as LatentDriver

__all__ = ["LatentDriver"]


def __getattr__(name: str) -> Any:
    if name == "LatentDriver":
        from stac_latent.cube.read.driver import LatentDriver

        return LatentDriver
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
