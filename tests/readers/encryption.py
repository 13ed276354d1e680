"""Files of an encrypted store, written from spec/encryption.md alone."""

from __future__ import annotations

import base64
import hashlib
import json

FORM = "aes-256-gcm-1"
KEEP = (
    "latent:kind", "latent:space", "latent:granularity", "latent:dtype", "latent:quantization", "data_type",
    "latent:dimensions", "latent:stride", "latent:padding", "proj:shape",
    "latent:halo", "latent:bitstream", "latent:residual", "latent:scale_asset",
)  # fmt: skip
OF_BANDS = (
    "name",
    "data_type",
    "unit",
    "gsd",
    "eo:common_name",
    "eo:center_wavelength",
    "eo:full_width_half_max",
)


def floats(values):
    return [float(v) for v in values]


def context(asset):
    """What the data key of a codec asset is bound to."""
    out = {k: asset[k] for k in KEEP if asset.get(k) is not None}
    out["latent:determinism"] = asset["latent:determinism"]
    if asset["latent:quantization"] not in ("none", "round", "binary"):
        out["latent:quantization_scale"] = floats(asset["latent:quantization_scale"])
        out["latent:quantization_offset"] = floats(asset.get("latent:quantization_offset") or [0])
    if asset["latent:quantization"] == "power":
        out["latent:quantization_power"] = float(asset["latent:quantization_power"])
    out["proj:code"] = asset.get("proj:code")
    if out["proj:code"] is None:
        out["proj:wkt2"] = asset["proj:wkt2"]
    out["proj:transform"] = floats(asset["proj:transform"][:6])
    out["bands"], places = [], []
    for band in asset["bands"]:
        own = {k: band[k] for k in OF_BANDS if band.get(k) is not None}
        own |= {k: float(v) for k, v in own.items() if isinstance(v, int)}
        if band.get("nodata") is not None:
            own["nodata"] = "nan" if band["nodata"] == "nan" else float(band["nodata"])
        for name, usual in (("raster:scale", 1), ("raster:offset", 0)):
            if band.get(name, usual) != usual:
                own[name] = float(band[name])
        out["bands"].append(own)
        place = None
        if band.get("proj:shape") or band.get("latent:group"):
            place = {
                "dimensions": band.get("latent:dimensions"), "group": band.get("latent:group", ""),
                "shape": band["proj:shape"], "transform": floats(band["proj:transform"]),
            }  # fmt: skip
        places.append(place)
    if any(places):
        out["places"] = places
    return json.dumps(out, sort_keys=True).encode()


def key_id(key):
    return hashlib.sha256(b"stac-latent key id 1" + key).hexdigest()[:16]


def data_key(asset, key):
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    if asset["latent:encryption"] != FORM or key is None or key_id(key) != asset["latent:key_id"]:
        raise ValueError("another key")
    wrapped = base64.b64decode(asset["latent:wrapped_key"], validate=True)
    wrapping = HKDF(SHA256(), 32, wrapped[:32], b"stac-latent wrap 1").derive(key)
    try:
        return AESGCM(AESGCM(wrapping).decrypt(bytes(12), wrapped[32:], context(asset)))
    except InvalidTag as exc:
        raise ValueError("other fields than when it was encrypted") from exc


class Changed(ValueError):
    """A file of an encrypted store that is not what was written there."""


class Sealed:
    """Files of a group of an encrypted store, by path."""

    def __init__(self, folder, group, cipher):
        self.folder, self.group, self.cipher = folder / group, group, cipher
        self.manifest = json.loads(self.open("manifest"))

    def open(self, place):
        from cryptography.exceptions import InvalidTag

        data = (self.folder / place).read_bytes()
        try:
            return self.cipher.decrypt(data[:12], data[12:], f"{FORM}|{self.group}/{place}".encode())
        except InvalidTag as exc:
            raise Changed(f"{place} does not open: it was changed, or lies where it was not written") from exc

    def read(self, place):
        if place in self.manifest["metadata"]:
            data = (self.folder / place).read_bytes()
            if hashlib.sha256(data).hexdigest() != self.manifest["metadata"][place]:
                raise Changed(f"{place} is not what the manifest says")
            return data
        return self.open(place) if place in self.manifest["chunks"] else None
