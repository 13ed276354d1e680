"""What the cube needs of odc-stac and odc-loader that they do not promise: every import of their private modules is here.

``tests/cube/test_odc_private.py`` says which versions this fits, and fails where a new one differs.
"""

from __future__ import annotations

from odc.loader._rio import LocalContext
from odc.stac._mdtools import StacAuxReader, StacMDParser, is_raster_data
from odc.stac._mdtools import _normalize_geometry as normalize_geometry

__all__ = ["LocalContext", "StacAuxReader", "StacMDParser", "is_raster_data", "normalize_geometry"]
