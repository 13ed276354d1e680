"""Of when a file is, by its name or its tags."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from stac_latent.catalog.adopt.period import Period, period
from stac_latent.errors import CatalogError

__all__ = ["check_format", "in_name", "in_tags", "moment", "of_format", "since"]

_DAY_OF_YEAR = re.compile(r"(\d{4})(\d{3})(?:[Tt](\d{6}))?")
_IN_NAME = re.compile(
    r"(?<!\d)((?:19|20)\d\d)([-_]?)(0[1-9]|1[0-2])\2(0[1-9]|[12]\d|3[01])(?:[T_t-]?([01]\d|2[0-3])([-_:]?)([0-5]\d)\6([0-5]\d))?(?!\d)"
)
_TAGS = (
    "ACQUISITIONDATETIME", "ACQUISITION_DATETIME", "SENSING_TIME", "datetime", "start_time", "time_coverage_start", "DATE_ACQUIRED",
    "acquisition_date", "ACQUISITION_DATE",
)  # fmt: skip
_SINCE = re.compile(r"(seconds|minutes|hours|days|s|min|h|d)\s+since\s+(.+)", re.IGNORECASE)
_UNITS = {"s": 1, "seconds": 1, "min": 60, "minutes": 60, "h": 3600, "hours": 3600, "d": 86400, "days": 86400}
_FORMAT = {
    "Y": r"\d{4}", "y": r"\d{2}", "m": r"\d{2}", "d": r"\d{2}", "H": r"\d{2}", "M": r"\d{2}", "S": r"\d{2}", "j": r"\d{3}", "b": "[A-Za-z]{3}",
}  # fmt: skip


def moment(text: str) -> Period:
    """First and last moment of a text of a name: ``20190627T112121``, ``2023123T161829`` (day of the year), ``2019-06-27``.

    Raises
    ------
    CatalogError
        If it is no time.

    Examples
    --------
    >>> [t.isoformat() for t in moment("2023123T161829")]
    ['2023-05-03T16:18:29+00:00', '2023-05-03T16:18:29+00:00']
    """
    if found := _DAY_OF_YEAR.fullmatch(text):
        year, day, clock = found.groups()
        try:
            if clock is not None:
                return period(datetime.strptime(f"{year}{day}{clock}", "%Y%j%H%M%S").replace(tzinfo=UTC))
            return period(datetime.strptime(f"{year}{day}", "%Y%j").date().isoformat())  # noqa: DTZ007 - a day, and no moment
        except ValueError as exc:
            raise CatalogError(f"{text!r} is no day of a year: {exc}") from exc
    return period(text.upper() if re.fullmatch(r"\d{8}t\d{6}", text) else text)


def in_name(name: str) -> Period | None:
    """The day, or the moment, that a name states with the year first; None where it states none, or several.

    Examples
    --------
    >>> in_name("s2_2020-06-01_B04")[0].isoformat()
    '2020-06-01T00:00:00+00:00'
    >>> in_name("s2_2019_260381") is None
    True
    """
    found = set()
    for match in _IN_NAME.finditer(name):
        year, _, month, day, hour, _, minute, second = match.groups()
        clock = "" if hour is None else f"T{hour}:{minute}:{second}"
        try:
            found.add(period(f"{year}-{month}-{day}{clock}"))
        except CatalogError:  # such as 31 June
            continue
    return found.pop() if len(found) == 1 else None


def in_tags(tags: Mapping[str, str]) -> Period | None:
    """The time that tags of a file state; None where none does."""
    for name in _TAGS:
        text = re.sub(r"(\.\d{6})\d+", r"\1", str(tags.get(name, "")))
        if text:
            try:
                return period(text.partition(";")[0].strip())
            except CatalogError:
                continue
    axis = next((k.removesuffix("#units") for k in ("time#units", "t#units") if k in tags), None)
    values = tags.get(f"NETCDF_DIM_{axis}_VALUES", "").strip("{}")
    if axis is not None and re.fullmatch(r"[-+\d.eE]+", values):
        found = since(float(values), tags[f"{axis}#units"], tags.get(f"{axis}#calendar", "standard"))
        return None if found is None else (found, found)
    return None


def since(value: float, units: str, calendar: str = "standard") -> datetime | None:
    """The moment that a number of CF's is; None where units or calendar are others than those of the clock.

    Examples
    --------
    >>> since(12, "hours since 1900-01-01 00:00:0.0").isoformat()
    '1900-01-01T12:00:00+00:00'
    """
    match = _SINCE.fullmatch(units.strip())
    if match is None or calendar.lower() not in ("standard", "gregorian", "proleptic_gregorian"):
        return None
    plain = re.sub(r"(\.\d*)?(\s*(UTC|Z)|[+-]00:?00)?$", "", match[2].strip())
    found = re.fullmatch(r"(\d{1,4})-(\d{1,2})-(\d{1,2})(?:[T ](\d{1,2}):(\d{1,2})(?::(\d{1,2}))?)?", plain)
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(v or 0) for v in found.groups())
    try:
        start = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
        return start + timedelta(seconds=value * _UNITS[match[1].lower()])
    except (ValueError, OverflowError):
        return None


def check_format(text: str) -> re.Pattern[str]:
    """The pattern of a format of ``strptime``.

    Raises
    ------
    CatalogError
        If it has no year, or a part that is not known.
    """
    parts = re.split(r"%(.)", text)
    if unknown := [p for p in parts[1::2] if p not in _FORMAT]:
        raise CatalogError(
            f"datetime pattern {text!r} has %{unknown[0]}; expected parts of {', '.join(f'%{k}' for k in _FORMAT)}, as in %Y-%m-%d"
        )
    if not {"Y", "y"} & set(parts[1::2]):
        raise CatalogError(f"datetime pattern {text!r} has no year; expected such as %Y-%m-%d")
    whole = "".join(_FORMAT[p] if i % 2 else re.escape(p) for i, p in enumerate(parts))
    return re.compile(rf"(?<!\d){whole}(?!\d)")


def of_format(text: str, name: str) -> Period:
    """The time that a name states in a format: a moment, a day, a month or a year.

    Raises
    ------
    CatalogError
        If the name has none of that format.

    Examples
    --------
    >>> [t.isoformat() for t in of_format("%Y", "barkbeetle/1985")]
    ['1985-01-01T00:00:00+00:00', '1985-12-31T23:59:59+00:00']
    """
    for match in check_format(text).finditer(name):
        try:
            found = datetime.strptime(match[0], text).replace(tzinfo=UTC)
        except ValueError:
            continue
        if "%H" in text:
            return found, found
        if "%d" in text or "%j" in text:
            return period(found.date())
        return period(f"{found:%Y-%m}" if "%m" in text or "%b" in text else f"{found:%Y}")
    raise CatalogError(f"{name} states no time as {text}; state it with --datetime, or datetime=")
