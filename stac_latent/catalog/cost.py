"""What pixels and latents cost to make and to send: energy, money and time, by constants that you can replace.

The defaults of :class:`CostConstants` are those of a review of lossy neural compression for Earth observation (its section V-B and Table V): networks
take 0.01 kWh and 0.02 USD for a gigabyte, and a learned encoder 1e15 floating-point operations for a gigabyte of pixels. So all that
rests on them alone is an estimate, and is called one. A gigabyte is 1e9 bytes.
"""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stac_latent.cube.item_assets import decodable_assets
from stac_latent.errors import CatalogError
from stac_latent.spec import Band
from stac_latent.system.links import asset_href, is_local, local_path

if TYPE_CHECKING:
    import pystac

__all__ = [
    "Cost",
    "CostConstants",
    "ItemBytes",
    "Transfer",
    "Work",
    "break_even",
    "cost",
    "encoding",
    "item_bytes",
    "measured",
    "read_downloads",
    "transfer",
]  # fmt: skip

_GIGA = 1e9
_JOULES_IN_KWH = 3.6e6
_RAPL = Path("/sys/class/powercap/intel-rapl:0")
"""Where Linux says what the first package of CPUs has used."""


@dataclass(frozen=True)
class CostConstants:
    """What is not measured.

    Attributes
    ----------
    transfer_kwh_per_gb : float
        Energy of networks [kWh/GB].
    egress_usd_per_gb : float
        What a store asks for a gigabyte that leaves it [USD/GB].
    bandwidth_mbit : float
        What a reader's line carries [Mbit/s].
    encode_flop_per_gb : float
        Operations of a learned encoder for a gigabyte of pixels [FLOP/GB].
    device_flop_per_second : float
        Speed of the device that encodes [FLOP/s].
    device_watts : float
        Its power [W].
    overhead : float
        Share of energy that cooling and the rest of the machine add.
    cpu_watts : float
        Power of one busy CPU core [W], where the machine does not tell its energy.
    ratio : float
        Bytes of latents for one byte of pixels, where no latents are at hand.
    """

    transfer_kwh_per_gb: float = 0.01
    egress_usd_per_gb: float = 0.02
    bandwidth_mbit: float = 100.0
    encode_flop_per_gb: float = 1e15
    device_flop_per_second: float = 150e12
    device_watts: float = 400.0
    overhead: float = 0.5
    cpu_watts: float = 10.0
    ratio: float = 0.01

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not (math.isfinite(value) and (value > 0 or (value == 0 and name == "overhead"))):
                raise CatalogError(f"{name} is {value!r}, expected a finite number above 0")

    def changed(self, values: Mapping[str, float]) -> CostConstants:
        """The same with other values, by name.

        Raises
        ------
        CatalogError
            If a name is unknown, or a value is no finite number above 0.
        """
        known = asdict(self)
        if strange := [name for name in values if name not in known]:
            raise CatalogError(f"no constant is called {strange[0]!r}; there are {', '.join(known)}")
        return replace(self, **values)


@dataclass(frozen=True)
class Work:
    """Time and energy of making something.

    Attributes
    ----------
    seconds : float
        Of one device, or CPU seconds where it was measured [s].
    kwh : float
        Energy with overhead [kWh].
    basis : str
        ``constants``, ``RAPL`` (energy was read from the machine) or ``CPU seconds`` (time was measured, and its energy is
        estimated from ``cpu_watts``).
    """

    seconds: float
    kwh: float
    basis: str = "constants"

    def times(self, factor: float) -> Work:
        """So much of it."""
        return Work(self.seconds * factor, self.kwh * factor, self.basis)


@dataclass(frozen=True)
class Transfer:
    """What it costs to send bytes once: energy [kWh], money [USD] and time [s]."""

    kwh: float
    usd: float
    seconds: float


def transfer(gigabytes: float, constants: CostConstants | None = None) -> Transfer:
    """What it costs to send so much once.

    Examples
    --------
    >>> year = transfer(100e6)  # 100 PB
    >>> round(year.kwh / 1e6, 3), round(year.usd / 1e6, 3)  # GWh, millions of USD
    (1.0, 2.0)
    >>> round(transfer(56_000).seconds / 86_400)  # days for 56 TB at 100 Mbit/s
    52
    """
    c = constants or CostConstants()
    return Transfer(
        gigabytes * c.transfer_kwh_per_gb,
        gigabytes * c.egress_usd_per_gb,
        gigabytes * _GIGA * 8 / (c.bandwidth_mbit * 1e6),
    )


def encoding(gigabytes: float, constants: CostConstants | None = None) -> Work:
    """What a learned encoder takes for so many gigabytes of pixels.

    Examples
    --------
    >>> one = encoding(1)
    >>> round(one.seconds, 1), round(one.kwh * 1000, 1)  # seconds, Wh
    (6.7, 1.1)
    >>> round(encoding(10e6).seconds / (365.25 * 86_400), 1)  # years of one device for 10 PB
    2.1
    """
    c = constants or CostConstants()
    seconds = gigabytes * c.encode_flop_per_gb / c.device_flop_per_second
    return Work(seconds, seconds * c.device_watts * (1 + c.overhead) / _JOULES_IN_KWH)


def measured(run: Any, constants: CostConstants | None = None, *, counter: Path = _RAPL) -> tuple[Any, Work]:
    """What a function gives, and the CPU seconds and energy that this process spent in it.

    Parameters
    ----------
    run : callable
        Called once, without arguments.
    constants : CostConstants, optional
        ``overhead``, and ``cpu_watts`` where the machine has no counter of energy.
    counter : Path
        Folder of the counter of energy (RAPL, as Linux shows it). It counts the whole package: leave the machine idle beside.

    Returns
    -------
    (result, Work)
        Energy is what the counter says, or else CPU seconds times ``cpu_watts``, both with overhead.

    Examples
    --------
    >>> total, work = measured(lambda: sum(range(1000)))
    >>> total, work.basis in ("RAPL", "CPU seconds")
    (499500, True)
    """
    c = constants or CostConstants()
    before, start = _joules(counter), time.process_time()
    result = run()
    seconds, after = time.process_time() - start, _joules(counter)
    if before is None or after is None:
        return result, _by_cpu(seconds, c)
    used = after - before
    if used < 0:  # the counter began anew
        used += float((counter / "max_energy_range_uj").read_text()) / 1e6
    return result, Work(seconds, used * (1 + c.overhead) / _JOULES_IN_KWH, "RAPL")


def _by_cpu(seconds: float, constants: CostConstants) -> Work:
    """Work whose energy is not known: that of a busy core for so long."""
    kwh = seconds * constants.cpu_watts * (1 + constants.overhead) / _JOULES_IN_KWH
    return Work(seconds, kwh, "CPU seconds")


def _joules(counter: Path) -> float | None:
    try:
        return float((counter / "energy_uj").read_text()) / 1e6
    except (OSError, ValueError):  # another machine, or only root may read it
        return None


def break_even(
    raw_gb: float, latent_gb: float, encode: Work, decode: Work, constants: CostConstants | None = None
) -> float:
    """Number of downloads from which on latents have taken less energy than pixels.

    Each download saves the transfer of the difference and costs one decode: ``encode.kwh / (saved - decode.kwh)``.

    Returns
    -------
    float
        Infinite where a decode takes more than its download saves.

    Examples
    --------
    >>> round(break_even(1, 0.01, encoding(1), Work(0, 0)), 3)
    0.112
    """
    c = constants or CostConstants()
    saved = (raw_gb - latent_gb) * c.transfer_kwh_per_gb - decode.kwh
    return encode.kwh / saved if saved > 0 else math.inf


@dataclass(frozen=True)
class ItemBytes:
    """Bytes of an item's latents of pixels, and of the pixels that they stand for.

    Attributes
    ----------
    item : str
        Id.
    latent : int
        Bytes of the stores of kind ``codec`` [byte].
    pixels : int
        Bytes of the same bands, not compressed [byte].
    files : int or None
        Bytes of the raw files that hold them; None where one of them tells no size [byte].
    """

    item: str
    latent: int
    pixels: int
    files: int | None

    @property
    def raw(self) -> int:
        """Bytes that are sent where pixels are: of the files, or else of the pixels."""
        return self.pixels if self.files is None else self.files


def item_bytes(item: pystac.Item, asset: str | None = None) -> ItemBytes | None:
    """Bytes of an item by what its assets say; None where it has no latents of pixels.

    Sizes of raw files are ``file:size``, or are looked up where they lie on this machine.

    Parameters
    ----------
    item : pystac.Item
        Nothing of it is read but its document.
    asset : str, optional
        Key of the latents, where it has several of pixels.

    Raises
    ------
    CatalogError
        If it has several latents of pixels, and ``asset`` names none.
    """
    latents = {k: item.assets[k].extra_fields for k in decodable_assets(item)}
    sized = [k for k, f in latents.items() if {"file:size", "proj:shape"} <= f.keys() and asset in (None, k)]
    if not sized:
        return None
    if len(sized) > 1:
        raise CatalogError(
            f"item {item.id!r} has several latents of pixels: {', '.join(sized)}; choose one with asset="
        )
    fields = latents[sized[0]]
    pixels = 0
    for band in fields.get("bands", ()):
        rows, columns = band.get("proj:shape", fields["proj:shape"])
        pixels += int(rows) * int(columns) * np.dtype(Band.from_stac(band).data_type).itemsize
    sources = {str(name) for name in fields.get("latent:source_bands", ())}
    return ItemBytes(item.id, int(fields["file:size"]), pixels, _file_bytes(item, set(latents), sources))


def _file_bytes(item: pystac.Item, latents: set[str], sources: set[str]) -> int | None:
    total = 0
    for key, asset in item.assets.items():
        bands = [
            b for name in ("bands", "eo:bands", "raster:bands") for b in asset.extra_fields.get(name, ())
        ]
        names = {key} | {str(b.get(n)) for b in bands for n in ("name", "common_name", "eo:common_name")}
        if key in latents or not names & sources:
            continue
        size = asset.extra_fields.get("file:size") or _size_here(asset_href(asset))
        if size is None:
            return None
        total += int(size)
    return total or None


def _size_here(href: str) -> int | None:
    path = local_path(href) if is_local(href) else None
    return path.stat().st_size if path is not None and path.is_file() else None


@dataclass(frozen=True)
class Cost:
    """Sums over the items of a catalogue; see :func:`cost`.

    Attributes
    ----------
    items : list of ItemBytes
        One for each item with latents of pixels.
    encode, decode : Work
        Of all items once.
    constants : CostConstants
        What the figures rest on beside measurements.
    """

    items: list[ItemBytes]
    encode: Work
    decode: Work
    constants: CostConstants = field(default_factory=CostConstants)

    @property
    def raw_gb(self) -> float:
        """What is sent where pixels are [GB]."""
        return sum(i.raw for i in self.items) / _GIGA

    @property
    def latent_gb(self) -> float:
        """What is sent where latents are [GB]."""
        return sum(i.latent for i in self.items) / _GIGA

    @property
    def break_even(self) -> float:
        """Downloads of the whole from which on latents have taken less energy."""
        return break_even(self.raw_gb, self.latent_gb, self.encode, self.decode, self.constants)

    def after(self, downloads: float) -> dict[str, Work]:
        """Energy and device seconds after so many downloads of the whole: ``pixels``, ``latents``.

        Pixels are not encoded for it, and cost their transfer alone.
        """
        c = self.constants
        pixels, latents = transfer(self.raw_gb, c), transfer(self.latent_gb, c)
        return {
            "pixels": Work(0.0, downloads * pixels.kwh, "constants"),
            "latents": Work(
                self.encode.seconds + downloads * self.decode.seconds,
                self.encode.kwh + downloads * (latents.kwh + self.decode.kwh),
                self.encode.basis,
            ),
        }

    def worthwhile(self, downloads: Mapping[str, float]) -> list[str]:
        """Ids of the items that were downloaded often enough for their encoding to have paid, the most downloaded first.

        An item's share of the work is its share of the pixels.
        """
        whole = sum(i.pixels for i in self.items)
        paid = []
        for i in self.items:
            share = i.pixels / whole if whole else 0.0
            least = break_even(
                i.raw / _GIGA,
                i.latent / _GIGA,
                self.encode.times(share),
                self.decode.times(share),
                self.constants,
            )
            if downloads.get(i.item, 0.0) >= least:
                paid.append(i.item)
        return sorted(paid, key=lambda name: (-downloads[name], name))


def cost(
    items: Iterable[pystac.Item],
    constants: CostConstants | None = None,
    *,
    asset: str | None = None,
    measure: int = 0,
    encode_seconds: float | None = None,
) -> Cost:
    """What the latents of some items cost beside their pixels.

    Parameters
    ----------
    items : iterable of pystac.Item
        Those without latents of pixels count for nothing.
    constants : CostConstants, optional
        What is not measured.
    asset : str, optional
        Key of the latents, where items have several of pixels.
    measure : int
        Decode so many of the items here, the first ones, and take the time and energy of all from it, by pixels. 0 decodes none, and
        decoding then counts as nothing.
    encode_seconds : float, optional
        CPU seconds that encoding took in all, as ``time`` or your scheduler tells; without it the constants of a learned encoder
        are taken [s].

    Raises
    ------
    CatalogError
        If no item has latents of pixels whose size is known, or one has several and ``asset`` names none.

    Examples
    --------
    >>> from stac_latent import search
    >>> found = cost(search("catalogs/sample/catalog.json"), asset="latent")  # doctest: +SKIP
    >>> found.latent_gb < found.raw_gb  # doctest: +SKIP
    True
    """
    from stac_latent.cube.read.load import load

    c = constants or CostConstants()
    sizes: list[ItemBytes] = []
    decoded, spent = 0, Work(0.0, 0.0)
    for item in items:
        size = item_bytes(item, asset)
        if size is None:
            continue
        sizes.append(size)
        if measure and len(sizes) == 1:
            load(item, asset=asset)  # what is done once in a process is no part of it
        if len(sizes) <= measure:
            _, work = measured(lambda item=item: load(item, asset=asset), c)
            decoded += size.pixels
            spent = Work(spent.seconds + work.seconds, spent.kwh + work.kwh, work.basis)
    if not sizes:
        raise CatalogError(
            "no item has latents of pixels whose size is known (kind codec, with file:size and proj:shape); encode some, or name another catalogue"
        )
    pixels = sum(s.pixels for s in sizes)
    made = encoding(pixels / _GIGA, c) if encode_seconds is None else _by_cpu(encode_seconds, c)
    return Cost(sizes, made, spent.times(pixels / decoded) if decoded else spent, c)


def read_downloads(path: Path) -> dict[str, float]:
    """Downloads of each item from a CSV file with the columns ``item`` and ``downloads``; without the second each row is one.

    Raises
    ------
    CatalogError
        If the file cannot be read, lacks the column ``item``, or a number is none.
    """
    counts: dict[str, float] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            if "item" not in (rows.fieldnames or ()):
                raise CatalogError(
                    f"{path} has the columns {rows.fieldnames}, expected 'item' and perhaps 'downloads'"
                )
            for number, row in enumerate(rows, 2):
                told = row.get("downloads")
                try:
                    count = 1.0 if told is None else float(told)
                except ValueError:
                    count = math.nan
                if not 0 <= count < math.inf:
                    raise CatalogError(f"{path}, line {number}: {told!r} is no number of downloads")
                counts[row["item"]] = counts.get(row["item"], 0.0) + count
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise CatalogError(f"cannot read {path}: {exc}") from exc
    return counts
