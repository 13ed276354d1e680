"""The stages that ship with the package, one module for each family, looked up by name when a bundle is opened.

Third-party stages come in by the entry point group ``stac_latent.stages``.
"""

from __future__ import annotations

import importlib
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, cast

from stac_latent.errors import CodecError
from stac_latent.system.exports import lazy

if TYPE_CHECKING:
    from stac_latent.stage import Stage
    from stac_latent.stages.base import BaseStage as BaseStage
    from stac_latent.stages.classical import Jpeg2000 as Jpeg2000
    from stac_latent.stages.classical import Zstd as Zstd
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
            "base": ["BaseStage"],
            "classical": ["Jpeg2000", "Zstd"],
        },
        "BUILTIN",
        "stage_class",
    )

BUILTIN = {
    "normalise": "stac_latent.stages.transform.normalise:Normalise",
    "klt": "stac_latent.stages.transform.klt:SpectralKLT",
    "dct": "stac_latent.stages.transform.block_dct:BlockDCT",
    "wavelet": "stac_latent.stages.transform.integer_wavelet:Wavelet",
    "uniform": "stac_latent.stages.transform.quantise:Uniform",
    "power": "stac_latent.stages.transform.quantise:Power",
    "rans": "stac_latent.stages.rans.stage:Rans",
    "pyramid": "stac_latent.stages.lin.pyramid:Pyramid",
    "lin": "stac_latent.stages.lin.stage:Lin",
    "fast": "stac_latent.stages.neural.stage:Fast",
    "onnx": "stac_latent.stages.onnx:OnnxEmbedder",
    "onnx-tiles": "stac_latent.stages.onnx:OnnxTiles",
    "zstd": "stac_latent.stages.classical:Zstd",
    "jpeg2000": "stac_latent.stages.classical:Jpeg2000",
}


@cache
def stage_class(name: str) -> type[Stage]:
    """Class of a stage by its name.

    Raises
    ------
    CodecError
        If no stage of that name ships with the package or is registered.
    """
    if name in BUILTIN:
        module, _, attr = BUILTIN[name].partition(":")
        return cast("type[Stage]", getattr(importlib.import_module(module), attr))
    found = entry_points(group="stac_latent.stages", name=name)
    for point in found:
        return cast("type[Stage]", point.load())
    raise CodecError(
        f"unknown stage {name!r}; this version knows {', '.join(sorted(BUILTIN))}. "
        "A newer stac-latent, or the plug-in package that defines the stage, is needed to decode with this bundle"
    )
