"""Codecs: chains with a name, a bundle of files, and a place where they are found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stac_latent.system.exports import lazy

if TYPE_CHECKING:
    from stac_latent.codec.bundle import load_bundle as load_bundle
    from stac_latent.codec.bundle import save_bundle as save_bundle
    from stac_latent.codec.codec import Codec as Codec
    from stac_latent.codec.registry import codec_names as codec_names
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
            "bundle": ["load_bundle", "save_bundle"],
            "codec": ["Codec"],
            "registry": ["codec_names"],
        },
    )
