"""The race: every chain and every installed peer on the same tiles in the same run.

:mod:`~stac_latent.bench.race` measures rate and distortion, :mod:`~stac_latent.bench.speed` measures time. Peers live in
``peers/`` and import their libraries when they are asked for; a peer whose library is absent is skipped, and the
result says so. Nothing of the package imports this room but the command line.
"""

from __future__ import annotations
