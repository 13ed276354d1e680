"""Every peer, in the order in which tables show them."""

from __future__ import annotations

from stac_latent.bench import peers_arrays, peers_images, peers_jpeg2000, peers_lossless
from stac_latent.bench.coder import Entrant

__all__ = ["peers"]


def peers() -> list[Entrant]:
    """Entrants of all peers, installed or not."""
    classes = (
        peers_jpeg2000.KltImage,
        peers_jpeg2000.KltStatic,
        peers_jpeg2000.SharedRate,
        peers_jpeg2000.PerBandQuality,
        peers_jpeg2000.PerBandRate,
        peers_images.Avif,
        peers_images.JpegXl,
        peers_images.Htj2k,
        peers_arrays.Sperr,
        peers_arrays.Sz3,
        peers_arrays.Zfp,
        peers_arrays.Lerc,
        peers_lossless.JpegXlLossless,
        peers_lossless.CogDeflate,
        peers_lossless.CogZstd,
    )
    return [Entrant(c.name, c) for c in classes]
