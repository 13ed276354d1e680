"""Every peer, in the order in which tables show them."""

from __future__ import annotations

from stac_latent.bench.coder import Entrant
from stac_latent.bench.peers import arrays, images, jpeg2000, lossless

__all__ = ["peers"]


def peers() -> list[Entrant]:
    """Entrants of all peers, installed or not."""
    classes = (
        jpeg2000.KltImage,
        jpeg2000.KltStatic,
        jpeg2000.SharedRate,
        jpeg2000.PerBandQuality,
        jpeg2000.PerBandRate,
        images.Avif,
        images.JpegXl,
        images.Htj2k,
        arrays.Sperr,
        arrays.Sz3,
        arrays.Zfp,
        arrays.Lerc,
        lossless.JpegXlLossless,
        lossless.CogDeflate,
        lossless.CogZstd,
    )
    return [Entrant(c.name, c) for c in classes]
