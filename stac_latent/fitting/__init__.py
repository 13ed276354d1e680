"""Codecs fitted to the Items of a catalogue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stac_latent.system.exports import lazy

if TYPE_CHECKING:
    from stac_latent.fitting.items import Fitted as Fitted
    from stac_latent.fitting.lin import fit_lin as fit_lin
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
            "items": ["Fitted"],
            "lin": ["fit_lin"],
        },
    )
