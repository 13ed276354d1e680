"""The bundle that a training leaves, measured against the chain that it started from, on the held-out places."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from stac_latent.aliases import Progress
from stac_latent.bench.curves import Curve, bd_rate
from stac_latent.codec.bundle import save_bundle
from stac_latent.codec.codec import Codec
from stac_latent.fitting.model_card import write_card
from stac_latent.quality.distortion import Distortion
from stac_latent.stages.lin.pyramid import CELL, TILE
from stac_latent.stages.neural.network import Network
from stac_latent.stages.neural.stage import Fast
from stac_latent.train.config import Config
from stac_latent.train.data import Scene, Scenes
from stac_latent.train.sample import check_base

__all__ = ["MARGIN", "bundle", "compare", "fast_codec"]

MARGIN = 3.0
"""Bits [%] that a learned codec must save before it is worth its cost."""
_POINTS = 8
_PER_PLACE = 2
_LISTED = 200


def fast_codec(name: str, base: Codec, network: Network, about: Mapping[str, Any] | None = None) -> Codec:
    """The base with a network: chain normalise > pyramid > fast."""
    _, lin = check_base(base)
    stages = (*base.stages[:-1], Fast.on(lin, network))
    return replace(base, name=name, stages=stages, about=dict(about or {}))


def _middles(scenes: Sequence[Scene]) -> list[Scene]:
    """Windows of one tile from the middles of scenes, two of a place at most."""
    taken: dict[str, int] = {}
    out = []
    for scene in scenes:
        if taken.get(scene.place, 0) >= _PER_PLACE:
            continue
        taken[scene.place] = taken.get(scene.place, 0) + 1
        h, w = (min(TILE, n // CELL * CELL) for n in scene.field.shape[1:])
        y, x = (scene.field.shape[1] - h) // 2, (scene.field.shape[2] - w) // 2
        cut = np.s_[:, y : y + h, x : x + w]
        out.append(
            replace(scene, field=scene.field[cut], mask=None if scene.mask is None else scene.mask[cut])
        )
    return out


def _curve(codec: Codec, scene: Scene, steps: Sequence[float]) -> Curve:
    points = []
    field = scene.field if scene.mask is None else _with_gaps(scene, codec)
    for step in steps:
        data = codec.compress(field, step=step)
        error = Distortion(codec.bands)
        error.add(field, codec.decompress(data), scene.mask)
        if error.psnr is not None:
            points.append((8 * len(data) / field.size, error.psnr))
    return Curve(points)


def _with_gaps(scene: Scene, codec: Codec) -> Any:
    from stac_latent.field.validity import apply_nodata

    return apply_nodata(scene.field, scene.mask, codec.bands)


def compare(
    base: Codec,
    codec: Codec,
    scenes: Sequence[Scene],
    step_range: tuple[float, float],
    report: Progress,
) -> dict[str, Any]:
    """Difference of rate at equal PSNR, on real byte strings.

    Returns
    -------
    dict
        ``bd_rate_percent``: mean over places, negative where the codec needs fewer bits than the base; by place in
        ``places``; the worst in ``worst_place``; ``tiles``, and the range of steps.
    """
    first, _ = check_base(base)
    unit = float(np.median(first.unit))
    steps = (np.geomspace(*step_range, _POINTS) * unit).tolist()
    chosen = _middles(scenes)
    found: dict[str, list[float]] = {}
    for k, scene in enumerate(chosen):
        anchor, test = (_curve(c, scene, steps) for c in (base, codec))
        difference = bd_rate(anchor, test)
        if difference is not None:
            found.setdefault(scene.place, []).append(difference.percent)
        report("compare", k + 1, len(chosen))
    places = {place: round(float(np.mean(v)), 2) for place, v in sorted(found.items())}
    if not places:
        return {"bd_rate_percent": None, "places": {}, "tiles": len(chosen)}
    worst = max(places, key=places.__getitem__)
    return {
        "bd_rate_percent": round(float(np.mean(list(places.values()))), 2), "places": places,
        "worst_place": [worst, places[worst]], "tiles": len(chosen), "steps": [round(s, 1) for s in (steps[0], steps[-1])],
    }  # fmt: skip


def bundle(
    config: Config,
    base: Codec,
    network: Network,
    scenes: Scenes,
    training: Mapping[str, Any],
    report: Progress,
) -> tuple[Codec, dict[str, Any]]:
    """Write the bundle with its card to ``bundle`` in the training's folder; what was measured comes back too."""
    plain = fast_codec(config.name, base, network)
    measured = compare(base, plain, scenes.held_out, config.optimiser.step_range, report)
    about = {
        "description": config.description or f"{base.name} with a learned correction of what it decodes to",
        "license": config.licence, "attribution": config.attribution, "base": {"name": base.name, "space": base.space},
        "fitted_on": _places(scenes.train, config), "held_out": _places(scenes.held_out, config),
        "sources": _sources(config, scenes), "training": {**training, **hardware()},
        "network": {"widths": list(config.net.widths), "blocks": network.blocks, "macs_per_pixel": round(network.macs)},
        "against_base": measured,
        "limits": "pixels may differ in the last bits between machines; tiles that the correction does not help take none of it",
    }  # fmt: skip
    codec = replace(plain, about=about)
    folder = save_bundle(codec, config.dest / "bundle")
    write_card(
        codec,
        Path(folder),
        [],
        {"seed": config.seed, **{k: v for k, v in training.items() if k != "history"}},
    )
    return codec, measured


def _places(scenes: Sequence[Scene], config: Config) -> list[str]:
    del config
    places = sorted({s.place for s in scenes})
    more = len(places) - _LISTED
    return places if more <= 0 else [*places[:_LISTED], f"and {more} more"]


def _sources(config: Config, scenes: Scenes) -> list[dict[str, Any]]:
    out = []
    for i, source in enumerate(config.data):
        mine = [s for s in scenes.train if s.source == i]
        row = {
            "from": source.items or source.files, "licence": source.licence, "note": source.note,
            "pixels": sum(s.pixels for s in mine), "places": len({s.place for s in mine}),
        }  # fmt: skip
        out.append({k: v for k, v in row.items() if v not in ("", None)})
    return out


def hardware() -> dict[str, str]:
    """What it was trained on."""
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU ({platform.machine()})"
    return {"hardware": device, "torch": torch.__version__.partition("+")[0]}
