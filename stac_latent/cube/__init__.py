"""Cubes: latents from STAC Items to xarray, decoded onto any grid or as they are on their lattice.

``LatentDriver`` is the odc-loader driver; give its name to odc-stac::

    odc.stac.load(items, bands=["B04"], driver="stac_latent.cube.LatentDriver")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stac_latent.system.exports import lazy

if TYPE_CHECKING:
    from stac_latent.cube.read.accessor import LatentAccessor as LatentAccessor
    from stac_latent.cube.read.driver import LatentDriver as LatentDriver
    from stac_latent.cube.read.driver import LatentParser as LatentParser
    from stac_latent.cube.read.driver import open_cells as open_cells
    from stac_latent.cube.read.reader import LatentReader as LatentReader
    from stac_latent.cube.read.xarray_engine import LatentBackendEntrypoint as LatentBackendEntrypoint
    from stac_latent.cube.ref import LatentRef as LatentRef
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
            "read.accessor": ["LatentAccessor"],
            "read.driver": ["LatentDriver", "LatentParser", "open_cells"],
            "read.reader": ["LatentReader"],
            "read.xarray_engine": ["LatentBackendEntrypoint"],
            "ref": ["LatentRef"],
        },
    )
