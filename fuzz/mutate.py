"""Small, fast mutations of bytes and of JSON documents."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

__all__ = ["mutate_bytes", "mutate_json"]

NUMBERS = (
    0,
    1,
    7,
    8,
    15,
    16,
    31,
    127,
    128,
    255,
    256,
    32767,
    65535,
    2**16,
    2**20,
    2**28,
    2**31 - 1,
    2**31,
    2**32 - 1,
)
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, 1e308, float("nan"), float("inf"), "", "x", "nan", "../../etc/passwd",
    "file:///etc/passwd", "http://127.0.0.1/", "\x00", "é" * 40, [], {}, [[]], [0] * 9, [None], {"a": None}, "9" * 5000,
    [-1, -1], [10**9, 10**9], [0.5, 0.5], "int8", "uint64", "complex128", "object", "float16",
)  # fmt: skip


def mutate_bytes(rng: random.Random, data: bytes, other: bytes = b"") -> bytes:
    """A few changes: bits, bytes, numbers, ranges that go, come twice, or come from another input."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 5, 9))):
        n, kind = len(out), rng.randrange(9)
        at = rng.randrange(n) if n else 0
        if kind <= 2 and n:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 3 and n:
            out[at] = rng.choice((0, 1, 127, 128, 254, 255, rng.randrange(256)))
        elif kind == 4 and n:
            width = rng.choice((1, 2, 4, 8))
            out[at : at + width] = (rng.choice(NUMBERS) % 2 ** (8 * width)).to_bytes(
                width, rng.choice(("little", "big"))
            )
        elif kind == 5:
            del out[at : at + rng.randrange(1, 17)]
        elif kind == 6:
            out[at:at] = out[at : at + rng.randrange(1, 17)] or b"\0"
        elif kind == 7:
            del out[at:]
        elif other:
            start = rng.randrange(len(other))
            piece = other[start : start + rng.randrange(1, 33)]
            out[at : at + rng.choice((0, len(piece)))] = piece
    return bytes(out[: 2 * len(data) + 4096])


def mutate_json(rng: random.Random, data: bytes) -> bytes:
    """A few changes to a document: values of another kind, members that go, come twice, or change places."""
    doc = json.loads(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = list(_places(doc))
        if not places:
            break
        parent, key = rng.choice(places)
        kind = rng.randrange(6)
        if kind <= 2:
            parent[key] = copy.deepcopy(rng.choice(VALUES))
        elif kind == 3:
            del parent[key]
        elif kind == 4:
            there, name = rng.choice(places)
            if isinstance(there, dict) or (isinstance(name, int) and name < len(there)):
                parent[key] = json.loads(
                    json.dumps(there.get(name) if isinstance(there, dict) else there[name])
                )
        elif isinstance(parent[key], int | float) and not isinstance(parent[key], bool):
            parent[key] = parent[key] * rng.choice((-1, 0, 2, 1e-9, 1e9)) + rng.choice((0, 1, -1, 0.5))
        else:
            parent[key] = [parent[key]]
    return json.dumps(doc).encode()


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every member of a document, with what holds it."""
    out: list[tuple[Any, Any]] = []
    stack = [value]
    while stack:
        here = stack.pop()
        inner = here.items() if isinstance(here, dict) else enumerate(here) if isinstance(here, list) else ()
        for key, child in list(inner):
            out.append((here, key))
            stack.append(child)
    return out
