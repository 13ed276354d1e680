"""Codec bundles: ``codec.json`` (chain, bands, statistics, model card) and ``codec.safetensors`` (arrays, probe).

A bundle is all that a decoder needs. Its digest is the space; its probe, a coded block with the checksums of what
it decodes to, shows that this machine decodes as the author's did.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from stac_latent.codec import Array, Codec
from stac_latent.errors import BundleError, StacLatentError
from stac_latent.spec import Band, Stats
from stac_latent.stages import stage_class

__all__ = ["FILES", "FORMAT", "load_bundle", "multihash", "read_bundle", "save_bundle", "write_bundle"]

FORMAT = "stac-latent-bundle-1"
FILES = ("codec.json", "codec.safetensors")
_MAX_BYTES = (16 << 20, 512 << 20)
_PROBED: set[str] = set()
_MALFORMED = (
    KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError, AssertionError,
)  # fmt: skip
"""What Python, numpy and the stages raise for a document that is not as a bundle has it."""


def multihash(data: bytes) -> str:
    """SHA-256 multihash in hexadecimal, as ``file:checksum`` wants it."""
    return "1220" + hashlib.sha256(data).hexdigest()


def write_bundle(codec: Codec) -> dict[str, bytes]:
    """Contents of the bundle's files, by name; the same codec gives the same bytes."""
    from safetensors.numpy import save

    tensors = {k: np.ascontiguousarray(v) for k, v in codec.tensors().items()}
    probe = _make_probe(codec)
    tensors |= {f"probe.{k}": v for k, v in probe.items() if isinstance(v, np.ndarray)}
    weights = save(dict(sorted(tensors.items())))
    doc = {
        "format": FORMAT,
        "name": codec.name,
        "space": codec.space,
        "kind": codec.kind,
        "dimensions": codec.dimensions,
        "granularity": codec.granularity,
        "bands": [asdict(b) for b in codec.bands],
        "chain": codec.chain(),
        "stats": None if codec.stats is None else asdict(codec.stats),
        "probe": {k: v for k, v in probe.items() if not isinstance(v, np.ndarray)},
        "about": dict(codec.about),
        "tensors": {"file": FILES[1], "checksum": multihash(weights), "size": len(weights)},
    }
    return {FILES[0]: (json.dumps(doc, indent=1) + "\n").encode(), FILES[1]: weights}


def save_bundle(codec: Codec, folder: str | os.PathLike[str]) -> Path:
    """Write a bundle into ``folder`` (made if need be); files appear whole or not at all."""
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    for name, data in reversed(write_bundle(codec).items()):
        part = path / f".{name}.{os.getpid()}.part"
        part.write_bytes(data)
        part.replace(path / name)
    return path


def load_bundle(folder: str | os.PathLike[str], *, space: str | None = None) -> Codec:
    """Open the bundle in ``folder``; with ``space``, refuse any other.

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
    return read_bundle(files, space=space, where=str(path))


def read_bundle(files: Mapping[str, bytes], *, space: str | None = None, where: str = "bundle") -> Codec:
    """Rebuild a codec from the contents of its files, verify its digest and run its probe.

    Parameters
    ----------
    files
        Contents by name (see :data:`FILES`).
    space
        Digest that the bundle must have.
    where
        Named in errors.

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
            name=str(doc["name"]),
            stages=tuple(_stage(i, c, tensors) for i, c in enumerate(doc["chain"])),
            bands=tuple(Band(**b) for b in doc["bands"]),
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
    except (*_MALFORMED, SafetensorError) as exc:
        raise BundleError(f"{where}: not a readable codec bundle: {type(exc).__name__}: {exc}") from exc
    for wanted, who in ((declared, "codec.json"), (space, "the item")):
        if wanted is not None and found != wanted:
            raise BundleError(
                f"{where}: the bundle's digest is {found}, {who} expects {wanted}; it is another codec, or was changed"
            )
    _run_probe(codec, probe, tensors, where)
    return codec


def _stage(i: int, config: Mapping[str, Any], tensors: Mapping[str, Array]) -> Any:
    rest = {k: v for k, v in config.items() if k != "stage"}
    mine = {k.removeprefix(f"{i}."): v for k, v in tensors.items() if k.startswith(f"{i}.")}
    return stage_class(config["stage"]).build(rest, mine)


def _crc(a: Array) -> int:
    return zlib.crc32(np.ascontiguousarray(a, a.dtype.newbyteorder("<")).data)


def _make_probe(codec: Codec) -> dict[str, Any]:
    """A small field that exercises every stage, its payload and the checksums of what they decode to."""
    codec = codec.parts[0]
    sy, sx = codec.stride
    h, w = max(sy * 2, 16 // sy * sy), max(sx * 2, 16 // sx * sx)
    n = len(codec.bands) * h * w
    noise = np.cumsum((np.arange(n, dtype=np.uint64) * 6364136223846793005 + 1442695040888963407) >> 58) % 997
    field = noise.reshape(len(codec.bands), h, w) + 40.0
    unit = getattr(codec.stages[0], "unit", None)
    if unit is not None and np.dtype(codec.bands[0].data_type).kind == "f":  # values that the bands may have
        field = field * np.reshape(unit, (-1, 1, 1)) + np.reshape(
            getattr(codec.stages[0], "mean", 0.0), (-1, 1, 1)
        )
    field = field.astype(codec.bands[0].data_type)
    symbols = codec.encode(field, upto="symbols")
    out: dict[str, Any] = {"field": field, "symbols_crc": _crc(symbols)}
    if codec.tail is not None:
        payload = codec.entropy_encode(symbols)
        out["payload"] = np.frombuffer(payload, np.uint8)
        out["symbols_crc"] = _crc(codec.entropy_decode(payload))
    if codec.kind == "codec" and codec.spec.determinism == "exact":
        decoded = codec.decode(symbols) if codec.tail is None else codec.decode(codec.entropy_encode(symbols))
        out["field_crc"] = _crc(decoded)
    return out


def _run_probe(codec: Codec, probe: Mapping[str, Any], tensors: Mapping[str, Array], where: str) -> None:
    if codec.space in _PROBED:
        return
    codec = codec.parts[0]
    try:
        payload = tensors.get("probe.payload")
        if payload is None:
            symbols = codec.encode(tensors["probe.field"], upto="symbols")
        else:
            symbols = codec.entropy_decode(payload.tobytes())
        got = {"symbols_crc": _crc(symbols)}
        if "field_crc" in probe:
            got["field_crc"] = _crc(codec.decode(symbols))
    except (StacLatentError, *_MALFORMED) as exc:
        raise BundleError(f"{where}: the probe block does not decode: {exc}") from exc
    wanted = {k: probe.get(k) for k in got}
    if got != wanted and codec.spec.determinism == "exact":
        raise BundleError(
            f"{where}: this machine decodes the probe block to checksums {got}, the author's to {wanted}; pixels "
            "decoded here would be wrong. Another version of a library, or a fault of this machine, is the likely cause"
        )
    _PROBED.add(codec.space)
