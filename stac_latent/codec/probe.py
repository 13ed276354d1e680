"""The probe of a codec bundle: a coded block, and checksums of what it decodes to on the author's machine.

A machine that decodes it otherwise would give wrong pixels, so it is refused. A probe that passed is not run again on
the same machine with the same software: the cache folder remembers it by space and by what decoding depends on.
"""

from __future__ import annotations

import hashlib
import json
import platform
import zlib
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from stac_latent.aliases import Array
from stac_latent.codec.codec import Codec
from stac_latent.errors import MALFORMED, BundleError, StacLatentError
from stac_latent.stages.transform.normalise import Normalise
from stac_latent.system.files import cache_folder, write_whole
from stac_latent.system.session import session

__all__ = ["environment", "make_probe", "passed", "run_probe", "software"]


class _Passed(set[tuple[str, str]]):
    """Digests of probes, and of the environment that they passed in."""


def passed() -> set[tuple[str, str]]:
    """Probes that passed in this process."""
    return session().of(_Passed)


_DEPENDS_ON = ("stac-latent", "numpy", "numba", "llvmlite", "constriction", "pillow", "onnxruntime")


@cache
def environment() -> dict[str, str]:
    """What decoding depends on: the machine, Python, and the versions of the libraries that take part."""
    found = {"machine": f"{platform.node()} {platform.machine()}", "python": platform.python_version()}
    for name in _DEPENDS_ON:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def software() -> dict[str, str]:
    """Versions of the libraries that take part, as ``processing:software`` has them."""
    return {name: value for name, value in environment().items() if name in _DEPENDS_ON}


def make_probe(codec: Codec) -> dict[str, Any]:
    """A small field that exercises every stage, its payload and the checksums of what they decode to."""
    codec = codec.grid_chains[0]
    sy, sx = codec.stride
    h, w = max(sy * 2, 16 // sy * sy), max(sx * 2, 16 // sx * sx)
    n = len(codec.bands) * h * w
    noise = np.cumsum((np.arange(n, dtype=np.uint64) * 6364136223846793005 + 1442695040888963407) >> 58) % 997
    field = noise.reshape(len(codec.bands), h, w) + 40.0
    first = codec.stages[0]
    if (
        isinstance(first, Normalise) and np.dtype(codec.bands[0].data_type).kind == "f"
    ):  # values that the bands may have
        field = field * first.unit.reshape(-1, 1, 1) + first.mean.reshape(-1, 1, 1)
    field = field.astype(codec.bands[0].data_type)
    if codec.bands[0].is_complex:
        field.imag = -field.real[:, ::-1, ::-1]
    symbols = codec.encode(field, upto="symbols")
    parts = (
        field.view(f"f{field.itemsize // 2}") if codec.bands[0].is_complex else field
    )  # bundles hold real numbers
    out: dict[str, Any] = {"field": parts, "symbols_crc": _crc(symbols)}
    if codec.tail is not None:
        payload = codec.entropy_encode(symbols)
        out["payload"] = np.frombuffer(payload, np.uint8)
        out["symbols_crc"] = _crc(codec.entropy_decode(payload))
    if codec.tolerance:
        out["symbols"] = symbols
    if codec.kind == "codec" and codec.spec.determinism == "exact":
        decoded = codec.decode(symbols) if codec.tail is None else codec.decode(codec.entropy_encode(symbols))
        out["field_crc"] = _crc(decoded)
    return out


def run_probe(
    codec: Codec, probe: Mapping[str, Any], tensors: Mapping[str, Array], where: str, *, refresh: bool = False
) -> None:
    """Decode the probe block and compare, unless it is known to pass on this machine.

    Parameters
    ----------
    codec
        What the bundle describes.
    probe, tensors
        Its checksums, and its arrays with the block.
    where
        Named in errors.
    refresh
        Run it even if it passed before.

    Raises
    ------
    BundleError
        If the block does not decode, or decodes to something else: then nothing may be decoded here.
    """
    fingerprint = _digest({**environment(), "probe": {k: probe.get(k) for k in ("symbols_crc", "field_crc")}})
    key = (codec.space, fingerprint)
    if not refresh and (key in passed() or _on_record(key)):
        passed().add(key)
        return
    codec = codec.grid_chains[0]
    try:
        payload = tensors.get("probe.payload")
        if payload is None:
            symbols = codec.encode(tensors["probe.field"], upto="symbols")
        else:
            symbols = codec.entropy_decode(payload.tobytes())
        got = {"symbols_crc": _crc(symbols)}
        if symbols.ndim != 3:
            raise BundleError(f"{where}: symbols of shape {symbols.shape}; expected (channel, y, x)")
        if (
            codec.kind == "codec"
        ):  # also where nothing is compared: a chain that does not fit together fails here
            decoded = codec.decode(symbols if payload is None else payload.tobytes())
            if "field_crc" in probe:
                got["field_crc"] = _crc(decoded)
    except (StacLatentError, *MALFORMED) as exc:
        raise BundleError(f"{where}: the probe block does not decode: {exc}") from exc
    wanted = {k: probe.get(k) for k in got}
    if codec.tolerance and not codec.agrees(symbols, tensors["probe.symbols"]):
        raise BundleError(
            f"{where}: this machine makes other latents of the probe block than the author's, beyond the stated tolerance of {codec.tolerance:g} deviations; "
            "another version of ONNX Runtime is the likely cause"
        )
    if got != wanted and codec.spec.determinism == "exact":
        raise BundleError(
            f"{where}: this machine decodes the probe block to checksums {got}, the author's to {wanted}; pixels "
            "decoded here would be wrong. Another version of a library, or a fault of this machine, is the likely cause"
        )
    passed().add(key)
    _record(key)


def _crc(a: Array) -> int:
    return zlib.crc32(np.ascontiguousarray(a, a.dtype.newbyteorder("<")).data)


def _digest(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _record(key: tuple[str, str]) -> None:
    """Remember a probe that passed; a cache that cannot be written is no reason to fail."""
    folder = cache_folder() / "probes"
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        note = json.dumps({"space": key[0], **environment()}, indent=1) + "\n"
        write_whole(folder / f"{_digest({'key': key})}.json", note.encode())


def _on_record(key: tuple[str, str]) -> bool:
    with suppress(OSError):
        return (cache_folder() / "probes" / f"{_digest({'key': key})}.json").is_file()
    return False
