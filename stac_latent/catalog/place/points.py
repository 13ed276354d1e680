"""The verb ``points``: values at many places through time, each stored chunk decoded once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, TypeVar

import pandas as pd
import pystac

from stac_latent.aliases import Progress
from stac_latent.catalog.place.found import Period, has_latents, items_at
from stac_latent.catalog.place.plan import COLUMNS, Beside, Plan, Samples, span_of, threads_for
from stac_latent.catalog.place.table import Columns, point_table
from stac_latent.catalog.search.arguments import Time
from stac_latent.cube.asset_choice import Upto, check_bands, check_upto
from stac_latent.cube.bad_items import Errors, error_policy, sound_items
from stac_latent.cube.band_kinds import asked_names, raw_names
from stac_latent.cube.grid.areas import Area
from stac_latent.cube.grid.mosaic import Execution
from stac_latent.cube.odc_private import StacMDParser
from stac_latent.cube.points.latents import CellSamples, FieldSamples
from stac_latent.cube.points.raw_files import RawSamples, data_bands
from stac_latent.cube.raw.named import RawBands
from stac_latent.cube.read.load import check_space, resolved_assets
from stac_latent.cube.read.physical import check_stored
from stac_latent.cube.read.request import LoadRequest, Selection
from stac_latent.cube.read.variables import ResolvedAsset
from stac_latent.errors import CatalogError
from stac_latent.secure import Key, use
from stac_latent.system.suggest import known_options

__all__ = ["points"]

T = TypeVar("T")


@known_options()
def points(
    source: Any,
    table: Any,
    bands: str | Sequence[str] | None = None,
    *,
    lon: str | None = None,
    lat: str | None = None,
    crs: Any = None,
    point: str | None = None,
    time: str | None = None,
    tolerance: Any = None,
    match: Literal["nearest", "all"] = "nearest",
    start_date: Time = None,
    end_date: Time = None,
    collections: str | Iterable[str] | None = None,
    asset: str | None = None,
    upto: Upto = "field",
    physical: bool = False,
    errors: Errors = "raise",
    key: Key | str | os.PathLike[str] | None = None,
    patch_url: Callable[[str], str] | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Values of the pixels that hold some points, through time: a row for each point and Item.

    Pixels are those of the Items' own grids, never resampled. Each store is opened once, and each of its chunks that holds a
    point is decoded once, whatever the number of points and their order; the same is true of raw files and their blocks.

    Parameters
    ----------
    source
        Whatever :func:`stac_latent.search` takes: a catalogue, Items, a table of Items, a STAC API.
    table
        DataFrame with columns ``lon`` and ``lat`` (or ``longitude`` and ``latitude``) in degrees, or GeoDataFrame of points in any CRS.
    bands
        By name or common name, raw ones too, as in :func:`stac_latent.load`; all decoded ones when left out, of raw Items all. Only with
        ``upto="field"``.
    lon, lat
        Columns of the coordinates, where they have other names.
    crs
        Of these columns, where they are not in degrees; they are then called ``x`` and ``y``, or as ``lon`` and ``lat`` say.
    point
        Column that names the points; the index of the table when left out. Points need not have names of their own.
    time
        Column with a time for each point; times without a zone are taken for UTC. All dates when left out.
    tolerance
        How far an Item may be from the time of a point, as ``"5D"`` or a timedelta; None: any distance, with ``match="nearest"``.
    match
        ``nearest`` gives each point the Item nearest to its time; of several at that time, as neighbouring tiles are, the first with data.
        ``all`` gives each that is within ``tolerance``.
    start_date, end_date
        First and last date, both included; open where left out.
    collections
        Ids of collections; all of the source when left out.
    asset
        Key of the latent asset, where Items have several. Items without it are left out.
    upto
        ``field`` gives a column for each band. ``latent`` gives one column ``latent``, whose entries are the cell's vector; of embeddings the
        dequantised vector.
    physical
        Values times scale plus offset, in physical units. Sensors that store a band in other types or scales meet only so.
    errors
        ``raise`` (default); ``warn`` and ``ignore`` leave out Items that cannot be opened, and give those that cannot be read the status
        ``unreadable``; ``warn`` names them (:class:`~stac_latent.errors.SourceWarning`).
    key, patch_url
        As of :func:`stac_latent.load`.
    progress
        Called as ``progress("read", items done, items)``.

    Returns
    -------
    pandas.DataFrame
        Columns ``point``, ``time`` (of the Item, UTC), ``item``, ``status``, and one for each band: floating point, NaN without data. Rows are
        in the order of the table, then of time. Every point has a row: where none of the Items holds it, one of status ``outside``,
        and where those that do are not of its time, ``no date``. Others are ``data`` or ``nodata``.

    Raises
    ------
    CatalogError
        If the table has no rows, columns or places that can be used, there are no Items, or these cannot be read together.
    GridError
        If the result would not fit the memory of this machine.
    SearchError
        If the source or the dates are none.

    Examples
    --------
    >>> import pandas, stac_latent
    >>> table = pandas.DataFrame({"lon": [-73.803, -73.801], "lat": [40.635, 40.636]})
    >>> values = stac_latent.points(
    ...     "catalogs/sample/catalog.json", table, ["red", "nir"], asset="latent"
    ... )  # doctest: +SKIP
    """
    check_upto(upto, bands, {"physical": physical or None})
    limit = _tolerance(tolerance, match, time)
    known = point_table(table, Columns(lon, lat, crs, time, point))
    if key is not None:
        use(key)
    request = LoadRequest(
        Selection(bands, asset, upto, physical=physical), Area(), Execution(errors=error_policy(errors, None)), patch_url
    )  # fmt: skip
    request.check()
    wanted = collections if collections is None or isinstance(collections, str) else list(collections)
    period = Period(start_date, end_date)
    items = items_at(source, known.area(), period, wanted, asset, f"any of {len(known)} point(s)")
    items = sorted(items, key=lambda item: (span_of(item), item.id))
    sources = _decoded(items, request) if has_latents(items) else _raw(items, request)
    plan = Plan(known, sources, limit, match, request.execution.errors)
    plan.check_size()
    return plan.table(plan.read(progress))


def _tolerance(given: Any, match: str, time: str | None) -> int | None:
    """Microseconds that a time may be off; None: any."""
    if match not in ("nearest", "all"):
        raise CatalogError(
            f"match={match!r} is not known; expected 'nearest' (one Item for each point) or 'all' (within tolerance)"
        )
    if time is None and (given is not None or match == "all"):
        raise CatalogError(
            "tolerance= and match='all' are about times of points: name their column with time=, or leave them out for all dates"
        )
    if match == "all" and given is None:
        raise CatalogError(
            "match='all' needs tolerance=, such as '5D': Items that far from the time of a point are taken"
        )
    if given is None:
        return None
    try:
        found = pd.Timedelta(given)
    except (ValueError, TypeError) as exc:
        raise CatalogError(
            f"tolerance={given!r} is no length of time; expected such as '5D', '12h' or a timedelta"
        ) from exc
    if not found >= pd.Timedelta(0):
        raise CatalogError(f"tolerance={given!r} must not be negative")
    return int(found // pd.Timedelta(1, "us"))


def _decoded(items: Sequence[pystac.Item], request: LoadRequest) -> list[tuple[pystac.Item, Samples]]:
    """Latents of each Item, and raw bands beside them."""
    selection = request.selection
    assets = resolved_assets(items, request)
    refs = [a.ref for a in assets]
    if selection.upto == "latent":
        check_space(refs)
        return [(a.item, CellSamples(a)) for a in assets]
    asked = asked_names(selection.bands)
    raw = raw_names(asked, assets)
    found = list(check_bands([n for n in asked if n not in raw] if asked else None, refs))
    check_stored(
        {n: [(a.ref.item_id, a.band(n)) for a in assets] for n in (*found, *raw)}, physical=selection.physical
    )
    _check_free(asked or found)

    def opened(asset: ResolvedAsset) -> Samples:
        parts: list[Samples] = []
        if found:
            parts.append(FieldSamples(asset, found, physical=selection.physical))
        if raw:
            parts.append(RawSamples(asset.raw, raw, physical=selection.physical))
        return parts[0] if len(parts) == 1 else Beside(parts, asked)

    return _each([(a.item, a) for a in assets], opened, request)


def _raw(items: Sequence[pystac.Item], request: LoadRequest) -> list[tuple[pystac.Item, Samples]]:
    """Files of each Item, where none has a latent."""
    selection = request.selection
    if selection.asset is not None or selection.upto == "latent":
        given = f"asset={selection.asset!r}" if selection.asset is not None else f"upto={selection.upto!r}"
        raise CatalogError(
            f"{given} given, and none of {len(items)} item(s) has a latent: they are raw. Leave it out, or encode the items first"
        )
    bands = [RawBands(item, StacMDParser({}), request.patch_url) for item in items]
    names = asked_names(selection.bands) or data_bands(bands[0])
    _check_free(names)

    def opened(raw: RawBands) -> Samples:
        return RawSamples(raw, names, physical=selection.physical)

    return _each([(raw.item, raw) for raw in bands], opened, request)


def _each(
    things: Sequence[tuple[pystac.Item, T]], opened: Callable[[T], Samples], request: LoadRequest
) -> list[tuple[pystac.Item, Samples]]:
    """What gives the values of each Item, opened a few at a time; bad Items are left out, where that is asked for."""
    with ThreadPoolExecutor(threads_for([item for item, _ in things])) as pool:
        futures = [(item, pool.submit(opened, thing)) for item, thing in things]
        named = [(item.id, (item, future)) for item, future in futures]
        return sound_items(named, lambda pair: (pair[0], pair[1].result()), request.execution.errors)


def _check_free(names: Iterable[str]) -> None:
    if taken := [n for n in names if n in COLUMNS]:
        raise CatalogError(
            f"a band is called {taken[0]!r}, as a column of every result is ({', '.join(COLUMNS)}); name it otherwise, as by its asset"
        )
