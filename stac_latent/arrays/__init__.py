"""Arrays that are in no catalogue: a codec of pixels for Zarr 3, and the same for numcodecs, hence Zarr 2 and kerchunk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stac_latent.system.exports import lazy

if TYPE_CHECKING:
    from stac_latent.arrays.numcodecs_codec import NumcodecsLatent as NumcodecsLatent
    from stac_latent.arrays.zarr_codec import Latent as Latent
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
            "numcodecs_codec": ["NumcodecsLatent"],
            "zarr_codec": ["Latent"],
        },
    )
