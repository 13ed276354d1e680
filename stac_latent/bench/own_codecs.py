"""The package's own codecs as coders: any installed name or bundle folder, swept over rate."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stac_latent.bench.coder import Array, Context, Entrant, Team, UnavailableError
from stac_latent.bench.integers import to_type
from stac_latent.codec.codec import Codec
from stac_latent.codec.registry import codec_names
from stac_latent.cube.open_codec import open_codec
from stac_latent.errors import StacLatentError
from stac_latent.field.validity import valid_mask
from stac_latent.fitting.lin import fit_lin
from stac_latent.spec import Band
from stac_latent.stage import EntropyCoder

__all__ = ["Chain", "Grids", "chains", "fitted_on"]

_REACH = 100_000
"""Units that values may lie from the mean; ``lin`` codes some more."""
_KNOBS = tuple(float(k) for k in range(-58, 66, 3))
_FITTED = "lin fitted on other places"
_PEERS = {"jpeg2000": "it is the peer 'JPEG 2000, rate shared among bands'"}


def chains(names: Sequence[str] | None, grids: int = 1) -> list[Entrant]:
    """Entrants of codecs by name or bundle folder; None: every installed one.

    With several grids, codecs that code them as one take part in that form too; beside ``lin`` goes ``lin`` as fitted to the
    fitting places of the data set.
    """
    chosen = list(names or codec_names())
    chosen += [_FITTED] if "lin" in chosen else []
    together = [n for n in chosen if n == "lin"] if grids > 1 else []
    return [
        *(Entrant(f"{n}, grids as one", partial(Chain, n), partial(Grids, n)) for n in together),
        *(Entrant(n, partial(Chain, n)) for n in chosen),
    ]


def fitted_on(names: Sequence[str] | None) -> list[str]:
    """Places that codecs were fitted on, by their model cards."""
    out: list[str] = []
    for name in names or codec_names():
        try:
            about = open_codec(name).about
        except StacLatentError:  # it needs to be told its bands, hence has no fit
            continue
        out += [str(text) for text in about.get("fitted_on", ())]
    return out


@dataclass
class Chain:
    """A codec of this package as a coder, swept by the step of its quantiser.

    Where the step is no part of the codec's space, payloads of all steps belong to the one codec; else each step is a codec, and
    four bytes with the knob go before the payload. Fields are brought to the codec's unit where it is another than theirs.

    Parameters
    ----------
    name
        Installed name or bundle folder.
    context
        Bands of the fields, and their peaks.
    """

    name: str
    context: Context
    lossless: bool = False
    knob: str = "step [dB below the peak]"
    knobs: Sequence[float] = _KNOBS
    codec: Codec = field(init=False)
    _options: dict[str, Any] = field(default_factory=dict, init=False)
    _known: dict[float, Codec] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if self.name in _PEERS:
            raise UnavailableError(f"{self.name} is not raced twice: {_PEERS[self.name]}")
        try:
            self.codec = self._fit() if self.name == _FITTED else open_codec(self.name)
        except UnavailableError:
            raise
        except StacLatentError:
            self._options = self._unfitted()
            try:
                self.codec = open_codec(self.name, **self._options)
            except StacLatentError as exc:
                raise UnavailableError(f"{self.name}: {exc}") from exc
        self._check()
        first = self.codec.stages[0]
        self.lossless = isinstance(first, EntropyCoder) and first.lossless
        self._free = self.codec.rate_control is not None
        if self.lossless:
            self.knob, self.knobs = "lossless", (0.0,)
        elif not self._free and Path(self.name).is_dir():
            raise UnavailableError(
                f"{self.name}: a bundle folder without rate control has one rate, hence no curve"
            )

    def encode(self, field: Array, knob: float) -> bytes:
        """See :meth:`~stac_latent.bench.coder.Coder.encode`."""
        x = self.converted(field)
        codec, target = self.at(knob)
        head = b"" if self.lossless or target else struct.pack("<f", knob)
        return head + codec.compress(x, **target)

    def decode(self, data: bytes) -> Array:
        """See :meth:`~stac_latent.bench.coder.Coder.decode`."""
        if self.lossless or self._free:
            x = self.codec.decompress(data)
        else:
            x = self._stepped(struct.unpack_from("<f", data)[0]).decompress(data[4:])
        return _convert(x, self.codec.bands, self.context.bands)

    def at(self, knob: float) -> tuple[Codec, dict[str, Any]]:
        """Codec at a setting, and the target that it is to be given."""
        if self.lossless:
            return self.codec, {}
        return (self.codec, {"step": self._step(knob)}) if self._free else (self._stepped(knob), {})

    def converted(self, field: Array) -> Array:
        """A field in the unit of the codec's bands."""
        return _convert(field, self.context.bands, self.codec.bands)

    def _fit(self) -> Codec:
        bands, fields = self.context.bands, self.context.fit
        if not fields:
            raise UnavailableError(f"{self.name}: the data set has no places to fit on")
        try:
            return fit_lin("lin", lambda: [(x, valid_mask(x, bands)) for x in fields], bands)
        except StacLatentError as exc:
            raise UnavailableError(f"{self.name}: {exc}") from exc

    def _unfitted(self) -> dict[str, Any]:
        """Options of a chain that takes any bands: units of 1 / 10,000 of the peaks where these are no whole numbers.

        Where values lie far from zero for their peak, zero is moved and the unit enlarged until they fit.
        """
        options: dict[str, Any] = {"bands": list(self.context.bands)}
        if any(b.data_type.startswith("f") for b in self.context.bands):
            if self.name in {"dct", "wavelet"}:
                options["unit"] = self.context.peak / 10_000
            if self.name == "lin":
                ranges = self.context.ranges or [(-p, p) for p in self.context.peaks]
                options["mean"] = [(low + high) / 2 for low, high in ranges]
                options["unit"] = [
                    max(p / 10_000, (high - low) / 2 / _REACH)
                    for p, (low, high) in zip(self.context.peaks, ranges, strict=True)
                ]
        return options

    def _check(self) -> None:
        ours, theirs = ([b.name for b in bands] for bands in (self.codec.bands, self.context.bands))
        common = [[b.common_name for b in bands] for bands in (self.codec.bands, self.context.bands)]
        if self.codec.kind != "codec":
            raise UnavailableError(f"{self.name} is an embedder: its latents do not decode")
        units = {b.unit for b in (*self.codec.bands, *self.context.bands)}
        alike = common[0] == common[1] and None not in common[0]
        alike |= len(ours) == len(theirs) == 1 and len(units) == 1 and None not in units
        if ours != theirs and not alike:
            raise UnavailableError(
                f"{self.name} codes {', '.join(ours)}; the fields have {', '.join(theirs)}"
            )

    def _step(self, knob: float) -> float:
        """Step in the unit of the codec's bands."""
        scale = self.context.bands[0].scale / self.codec.bands[0].scale
        return self.context.peak * scale * 10 ** (-knob / 20)

    def _stepped(self, knob: float) -> Codec:
        knob = float(np.float32(knob))
        if knob not in self._known:
            step = self._step(knob) / self._options.get("unit", 1.0)
            self._known[knob] = open_codec(self.name, **self._options, step=step)
        return self._known[knob]


class Grids(Team):
    """A codec that codes bands of several native grids in one payload.

    Parameters
    ----------
    name
        Installed name of a chain that takes any bands.
    contexts
        Bands and peaks of each grid, finest first.
    """

    def __init__(self, name: str, contexts: Sequence[Context]) -> None:
        bands = tuple(b for c in contexts for b in c.bands)
        peaks = tuple(p for c in contexts for p in c.peaks)
        ranges = tuple(r for c in contexts for r in c.ranges)
        self.chain = Chain(name, replace(contexts[0], bands=bands, peaks=peaks, ranges=ranges, fit=()))
        super().__init__([self.chain])

    def encode(self, fields: Sequence[Array], knob: float) -> list[bytes]:
        """One payload of all fields."""
        codec, target = self.chain.at(knob)
        return [codec.compress(list(fields), **target)]

    def decode(self, payloads: Sequence[bytes]) -> list[Array]:
        """Inverse of :meth:`encode`."""
        return list(self.chain.codec.decompress(payloads[0]))


def _convert(x: Array, source: Sequence[Band], target: Sequence[Band]) -> Array:
    """A field in the unit and type of other bands; as it is where they are the same."""
    if all(
        (a.data_type, a.scale, a.offset) == (b.data_type, b.scale, b.offset)
        for a, b in zip(source, target, strict=True)
    ):
        return x
    out = [
        to_type((band.astype(np.float64) * a.scale + a.offset - b.offset) / b.scale, np.dtype(b.data_type))
        for band, a, b in zip(x, source, target, strict=True)
    ]
    return np.stack(out)
