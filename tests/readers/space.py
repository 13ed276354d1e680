"""Digests of spaces, and codec bundles, written from spec/space.md and spec/bundle.md alone."""

from __future__ import annotations

import hashlib
import json
import math

import numpy as np

TYPES = {
    "F32": "<f4", "F64": "<f8", "I8": "|i1", "U8": "|u1", "I16": "<i2", "U16": "<u2", "I32": "<i4", "U32": "<u4", "I64": "<i8", "U64": "<u8",
}  # fmt: skip


class Number(str):
    """A number as its text."""

    __slots__ = ()


def canonical(value):
    if isinstance(value, Number):
        return str(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return text(value)
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    return "{" + ",".join(f"{text(k)}:{canonical(value[k])}" for k in sorted(value)) + "}"


def text(value):
    short = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return '"' + "".join(short.get(c, f"\\u{ord(c):04x}" if ord(c) < 32 else c) for c in value) + '"'


def parse(data):
    """JSON whose numbers stay texts."""
    return json.loads(data, parse_float=Number, parse_int=Number, parse_constant=Number)


def tensors(data):
    """Tensors of a safetensors file: type, shape and bytes by name."""
    n = int.from_bytes(data[:8], "little")
    head = json.loads(data[8 : 8 + n])
    out = {}
    for name, t in head.items():
        if name != "__metadata__":
            a, b = t["data_offsets"]
            out[name] = (TYPES[t["dtype"]], t["shape"], data[8 + n + a : 8 + n + b])
    return out


def space_of_codec(codec, weights):
    """Digest from the bytes of codec.json and what :func:`tensors` gave."""
    doc = parse(codec)
    given = [b["nodata"] for b in doc["bands"]]
    nodata = ["None" if n is None else str(n) for n in given]
    rows = [
        [b["name"], b["data_type"], b["scale"], b["offset"], n]
        for b, n in zip(doc["bands"], nodata, strict=True)
    ]
    data = canonical(doc["chain"]).encode() + canonical(rows).encode()
    for name in sorted(n for n in weights if not n.startswith("probe.")):
        kind, shape, values = weights[name]
        data += f"{name}:{kind}:[{', '.join(map(str, shape))}]".encode() + values
    return "sha256:" + hashlib.sha256(data).hexdigest(), data


def space_of_product(producer, product, version):
    data = canonical({"producer": producer, "product": product, "version": version}).encode()
    return "sha256:" + hashlib.sha256(data).hexdigest(), data


class Bundle:
    """Stages, bands and tensors of a bundle, all checksums verified."""

    def __init__(self, codec, weights):
        doc = json.loads(codec)
        if doc["format"] != "stac-latent-bundle-1":
            raise ValueError("another format")
        if doc["tensors"]["checksum"] != "1220" + hashlib.sha256(weights).hexdigest():
            raise ValueError("another checksum of the tensors")
        found = tensors(weights)
        if space_of_codec(codec, found)[0] != doc["space"]:
            raise ValueError("another digest")
        self.doc, self.chain, self.bands = doc, doc["chain"], doc["bands"]
        self.tensors = {n: np.frombuffer(v, t).reshape(s) for n, (t, s, v) in found.items()}
        self.last = self.chain[-1]["stage"]

    def of(self, stage):
        """Parameters of the stage of a name, and its tensors."""
        for i, s in enumerate(self.chain):
            if s["stage"] == stage:
                return s, {n.partition(".")[2]: v for n, v in self.tensors.items() if n.startswith(f"{i}.")}
        return None, {}

    def lattices(self):
        """Bands of each lattice, as positions, and how many each of its grids has."""
        stage = self.of("pyramid")[0] or {}
        out, at = [], 0
        for counts in stage.get("lattices") or [[len(self.bands)]]:
            out.append((list(range(at, at + sum(counts))), counts))
            at += sum(counts)
        return out


def nan(value):
    return isinstance(value, float) and math.isnan(value)
