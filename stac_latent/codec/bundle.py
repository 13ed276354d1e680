"""Codec bundles: ``codec.json`` (chain, bands, statistics, model card) and ``codec.safetensors`` (arrays, probe).

A bundle is all that a decoder needs. Its digest is the space; its probe, a coded block with the checksums of what
it decodes to, shows that this machine decodes as the author's did.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from stac_latent.aliases import Array
from stac_latent.codec.codec import Codec
from stac_latent.codec.probe import make_probe, run_probe
from stac_latent.errors import MALFORMED, BundleError, CatalogError, StacLatentError
from stac_latent.spec import Band, Stats
from stac_latent.stages import stage_class
from stac_latent.system.digests import multihash
from stac_latent.system.files import write_whole
from stac_latent.system.names import safe_name

__all__ = [
    "FILES",
    "FORMAT",
    "load_bundle",
    "read_bundle",
    "save_bundle",
    "write_bundle",
]

FORMAT = "stac-latent-bundle-1"
FILES = ("codec.json", "codec.safetensors")
_MAX_BYTES = (16 << 20, 512 << 20)

_LATER = ("center_wavelength", "full_width_half_max")
"""Fields of a band that bundles hold where they are known, and older ones never do."""


def write_bundle(codec: Codec) -> dict[str, bytes]:
    """Contents of the bundle's files, by name; the same codec gives the same bytes."""
    from safetensors.numpy import save

    tensors = {k: np.ascontiguousarray(v) for k, v in codec.tensors().items()}
    probe = make_probe(codec)
    tensors |= {f"probe.{k}": v for k, v in probe.items() if isinstance(v, np.ndarray)}
    weights = save(dict(sorted(tensors.items())))
    doc = {
        "format": FORMAT,
        "name": codec.name,
        "space": codec.space,
        "kind": codec.kind,
        "dimensions": codec.dimensions,
        "granularity": codec.granularity,
        "bands": [_written(b) for b in codec.bands],
        "chain": codec.chain(),
        "stats": None if codec.stats is None else asdict(codec.stats),
        "probe": {k: v for k, v in probe.items() if not isinstance(v, np.ndarray)},
        "about": dict(codec.about),
        "tensors": {"file": FILES[1], "checksum": multihash(weights), "size": len(weights)},
    }
    try:
        text = json.dumps(doc, indent=1, allow_nan=False)
    except ValueError as exc:
        raise BundleError(
            f"codec {codec.name!r} cannot be written: a number of its model card or statistics is NaN or infinite, which JSON does not have; "
            "leave it out, or write it as text"
        ) from exc
    return {FILES[0]: (text + "\n").encode(), FILES[1]: weights}


def _written(band: Band) -> dict[str, Any]:
    """A band as JSON has it: a nodata value that is no number of it is text, as in STAC."""
    out = {k: v for k, v in asdict(band).items() if v is not None or k not in _LATER}
    if band.nodata is not None and not math.isfinite(band.nodata):
        out["nodata"] = str(band.nodata)
    return out


def _read(band: Mapping[str, Any]) -> Band:
    """Inverse of :func:`_written`."""
    nodata = band.get("nodata")
    if isinstance(nodata, str):
        nodata = math.nan if nodata == "nan" else float(nodata)  # one NaN, so that equal bands are equal
    return Band(**{**band, "nodata": nodata})


def save_bundle(codec: Codec, folder: str | os.PathLike[str]) -> Path:
    """Write a bundle into ``folder`` (made if need be); files appear whole or not at all."""
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    for name, data in reversed(write_bundle(codec).items()):
        write_whole(path / name, data)
    return path


def load_bundle(folder: str | os.PathLike[str], *, space: str | None = None, refresh: bool = False) -> Codec:
    """Open the bundle in ``folder``; with ``space``, refuse any other; ``refresh`` runs its probe though it passed before.

    Raises
    ------
    BundleError
        If files are missing, changed, or not a bundle.
    """
    path, files = Path(folder), {}
    for name, limit in zip(FILES, _MAX_BYTES, strict=True):
        try:
            size = (path / name).stat().st_size
            if size > limit:
                raise BundleError(f"{path / name} has {size} bytes; at most {limit} are read")
            files[name] = (path / name).read_bytes()
        except OSError as exc:
            raise BundleError(f"no codec bundle in {path}: {exc}; it holds {' and '.join(FILES)}") from exc
    return read_bundle(files, space=space, where=str(path), refresh=refresh)


def read_bundle(
    files: Mapping[str, bytes], *, space: str | None = None, where: str = "bundle", refresh: bool = False
) -> Codec:
    """Rebuild a codec from the contents of its files, verify its digest and run its probe.

    Parameters
    ----------
    files
        Contents by name (see :data:`FILES`).
    space
        Digest that the bundle must have.
    where
        Named in errors.
    refresh
        Run the probe though it passed on this machine before.

    Raises
    ------
    BundleError
        If a file is malformed, a checksum or the digest differs, a stage is unknown, or the probe fails.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        doc = json.loads(files[FILES[0]])
        if doc["format"] != FORMAT:
            raise BundleError(
                f"{where}: format {doc['format']!r} is not known; this version reads {FORMAT!r}"
            )
        weights = files[FILES[1]]
        if multihash(weights) != doc["tensors"]["checksum"]:
            raise BundleError(
                f"{where}: {FILES[1]} has checksum {multihash(weights)}, codec.json expects "
                f"{doc['tensors']['checksum']}; fetch the bundle again"
            )
        tensors = load(weights)
        codec = Codec(
            name=_name(doc["name"], where),
            stages=tuple(_stage(i, c, tensors) for i, c in enumerate(doc["chain"])),
            bands=tuple(_read(b) for b in doc["bands"]),
            kind=doc["kind"],
            dimensions=int(doc["dimensions"]),
            stats=None
            if doc["stats"] is None
            else Stats(tuple(doc["stats"]["mean"]), tuple(doc["stats"]["std"])),
            granularity=doc["granularity"],
            about=doc["about"],
        )
        declared, probe, found = str(doc["space"]), dict(doc["probe"]), codec.space
    except StacLatentError:
        raise
    except (*MALFORMED, SafetensorError) as exc:
        raise BundleError(f"{where}: not a readable codec bundle: {type(exc).__name__}: {exc}") from exc
    for wanted, who in ((declared, "codec.json"), (space, "the item")):
        if wanted is not None and found != wanted:
            raise BundleError(
                f"{where}: the bundle's digest is {found}, {who} expects {wanted}; it is another codec, or was changed"
            )
    run_probe(codec, probe, tensors, where, refresh=refresh)
    return codec


def _name(given: Any, where: str) -> str:
    """Name of a bundle's codec; catalogues name its folder after it."""
    try:
        return safe_name(str(given), "name")
    except CatalogError as exc:
        raise BundleError(f"{where}: {exc}") from None


def _stage(i: int, config: Mapping[str, Any], tensors: Mapping[str, Array]) -> Any:
    rest = {k: v for k, v in config.items() if k != "stage"}
    mine = {k.removeprefix(f"{i}."): v for k, v in tensors.items() if k.startswith(f"{i}.")}
    return stage_class(config["stage"]).build(rest, mine)
