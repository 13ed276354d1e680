"""Byte strings of fields without what a chunk's own header says too: their headers, checksums and shapes.

``thin`` takes them out, ``full`` puts them back, byte for byte: what a chunk holds is what ``codec.compress`` wrote. One byte tells the form: as it
was, of one grid, or within an error bound; numbers are of seven bits a byte. A byte string of another form is kept as it was.
"""

from __future__ import annotations

from stac_latent.bytestring.framing import BOUNDED, ONE_GRID, Numbers, frame, number, unframe
from stac_latent.errors import CorruptDataError
from stac_latent.stages.residual.payload import BITSTREAM

__all__ = ["Numbers", "full", "number", "thin"]

_WHOLE, _ONE, _BOUND, _SHARED = range(4)
"""As it was; of one grid; within a bound; the same, where base and bound have one mask."""


def thin(data: bytes, space: str, shape: tuple[int, int, int]) -> bytes:
    """A byte string without what can be told from space and shape."""
    out = _thin(data)
    if out[0] != _WHOLE and full(out, space, shape) == data:
        return out
    return bytes([_WHOLE]) + data


def full(data: bytes, space: str, shape: tuple[int, int, int]) -> bytes:
    """Inverse of :func:`thin`.

    Raises
    ------
    CorruptDataError
        If the bytes are none of such a field.
    """
    read = Numbers(data)
    (form,) = read.take(1)
    if form == _WHOLE:
        return read.rest()
    if form == _ONE:
        return _one(read.number(), read.take(read.number()), read.rest(), space, shape)
    if form not in (_BOUND, _SHARED):
        raise CorruptDataError(f"a byte string of form {form} is none that this version reads")
    rows, bits = read.number(), read.take(read.number())
    if form == _SHARED:
        base = _one(rows, bits, read.take(read.number()), space, shape)
    else:
        base = full(read.take(read.number()), space, shape)
    head = {"base": len(base), "masks": [[rows, len(bits)]], "residual": BITSTREAM, "sizes": [list(shape)]}
    return frame(BOUNDED, head, b"".join((base, bits, read.rest())))


def _thin(data: bytes) -> bytes:
    if data[:4] == ONE_GRID:
        head, body = unframe(data, ONE_GRID, "compress()")
        rows, size = head["mask"]
        return b"".join((bytes([_ONE]), number(rows), number(size), body))
    if data[:4] != BOUNDED:
        return bytes([_WHOLE])
    head, body = unframe(data, BOUNDED, "compress(error_bound=)")
    base, ((rows, size),) = body[: head["base"]], head["masks"]
    bits, rest = body[len(base) : len(base) + size], body[len(base) + size :]
    mask = number(rows) + number(size) + bits
    inner, payload = unframe(base, ONE_GRID, "compress()")
    if inner["mask"] == [rows, size] and payload[:size] == bits:
        payload = payload[size:]
        return b"".join((bytes([_SHARED]), mask, number(len(payload)), payload, rest))
    small = _thin(base)
    return b"".join((bytes([_BOUND]), mask, number(len(small)), small, rest))


def _one(rows: int, bits: bytes, payload: bytes, space: str, shape: tuple[int, int, int]) -> bytes:
    head = {"space": space[: len("sha256:") + 16], "shape": list(shape), "mask": [rows, len(bits)]}
    return frame(ONE_GRID, head, bits + payload)
