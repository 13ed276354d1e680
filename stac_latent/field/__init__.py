"""What a field of pixels is: valid pixels, the stored type, error bounds and targets of a rate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stac_latent.system.exports import lazy

if TYPE_CHECKING:
    from stac_latent.field.error_bound import ErrorBound as ErrorBound
    from stac_latent.field.rate_target import Target as Target
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
            "error_bound": ["ErrorBound"],
            "rate_target": ["Target"],
        },
    )
