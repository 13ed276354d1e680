"""What a caller of ``compress`` may ask for, checked once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from stac_latent.errors import OptionError
from stac_latent.field.error_bound import BoundLike
from stac_latent.field.rate_target import TARGETS, Target

__all__ = ["CompressOptions"]


@dataclass(frozen=True)
class CompressOptions:
    """How a field is coded.

    Parameters
    ----------
    target
        What is coded towards; empty for the chain's own step.
    error_bound
        What every decoded pixel keeps; see :meth:`stac_latent.field.error_bound.ErrorBound.of`. None for no bound.
    band_weights
        Factor on the precision of each band: 2 halves its error against the others'.
    roi
        Region of interest, bool ``(y, x)``: outside it squared errors weigh ``roi_weight``, and bits move inside.
    roi_weight
        More than 0, at most 1.
    mask
        Pixels to code, bool ``(1 or band, y, x)``; None for those that hold data.
    """

    target: Target = field(default_factory=Target)
    error_bound: BoundLike | None = None
    band_weights: Sequence[float] | None = None
    roi: npt.NDArray[np.bool_] | None = None
    roi_weight: float = 0.1
    mask: npt.NDArray[np.bool_] | None = None

    def refuse(self, form: str, *names: str) -> None:
        """Refuse options that a byte string cannot take.

        Raises
        ------
        OptionError
            Names the first of them, and ``form``, what is coded.
        """
        given = {"band_weights": self.band_weights, "roi": self.roi, "mask": self.mask}
        for name in names:
            if given[name] is not None:
                raise OptionError(
                    f"compress() of {form} has no option {name!r}; it takes {', '.join((*TARGETS, 'error_bound'))}"
                )
