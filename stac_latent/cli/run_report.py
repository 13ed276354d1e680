"""The report of a run of ``encode`` as a file: what became of each Item, and which to encode again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stac_latent.cli.guard_messages import Heard
from stac_latent.errors import CatalogError

if TYPE_CHECKING:
    import pystac

    from stac_latent.catalog.encode.messages import ItemOutcome

__all__ = ["failed_of", "reporting"]

_TYPE = "stac-latent encode report"


@contextmanager
def reporting(path: Path | None, total: int, outcomes: Sequence[ItemOutcome], heard: Heard) -> Iterator[None]:
    """Write a report when a run ends, however it ends; no path is no report.

    Parameters
    ----------
    path
        What to write, whole or not at all. A file that is there has to be a report of an earlier run.
    total
        How many Items the run is about.
    outcomes
        What became of them; filled while the run goes on.
    heard
        Documents that could not be read.

    Raises
    ------
    CatalogError
        If the file cannot be written, or is something else than a report.
    """
    if path is None:
        yield
        return
    if path.exists():
        _read(path, f"--report replaces reports alone; {path}")
    _write(path, "running", total, outcomes, heard)
    state = "failed"
    try:
        yield
        state = "finished"
    except (KeyboardInterrupt, SystemExit):
        state = "interrupted"
        raise
    finally:
        _write(path, state, total, outcomes, heard)


def failed_of(path: Path, items: Sequence[pystac.Item]) -> list[pystac.Item]:
    """The Items that failed in the run of a report, in the order given.

    Raises
    ------
    CatalogError
        If it is no report, none failed in it, or none of those that failed is among the Items.
    """
    failed = [row for row in _read(path, str(path))["items"] if row.get("state") == "failed"]
    if not failed:
        raise CatalogError(f"no item failed in {path}; there is nothing to encode again")
    wanted = {(row.get("collection"), row.get("id")) for row in failed if row.get("id") is not None}
    places = {row.get("href") for row in failed if row.get("id") is None}
    found = [i for i in items if (i.collection_id, i.id) in wanted or i.get_self_href() in places]
    if not found:
        raise CatalogError(
            f"none of the {len(failed)} items that failed in {path} is in the source; name the source of that run"
        )
    return found


def _write(path: Path, state: str, total: int, outcomes: Sequence[ItemOutcome], heard: Heard) -> None:
    from stac_latent.system.files import write_whole, writing

    rows: list[dict[str, Any]] = [o.to_dict() for o in outcomes]
    for where, text in heard.unread:
        error = {"type": "SearchError", "message": text}
        rows.append({"id": None, "collection": None, "state": "failed", "href": where, "error": error})
    counts = {s: sum(r["state"] == s for r in rows) for s in ("done", "skipped", "failed")}
    doc = {"type": _TYPE, "state": state, "total": total + len(heard.unread), **counts, "items": rows}
    with writing(path):
        write_whole(path, (json.dumps(doc, indent=1) + "\n").encode())


def _read(path: Path, what: str) -> dict[str, Any]:
    try:
        doc = json.loads(path.read_bytes())
        sound = doc["type"] == _TYPE and all(map(_is_row, doc["items"]))
    except OSError as exc:
        raise CatalogError(
            f"{what} cannot be read ({exc}); name a report that encode --report wrote"
        ) from exc
    except (ValueError, KeyError, TypeError, RecursionError):
        sound = False
    if not sound:
        raise CatalogError(f"{what} is no report of encode; name a file that encode --report wrote")
    return dict(doc)


def _is_row(row: Any) -> bool:
    return isinstance(row, dict) and all(
        isinstance(row.get(name), str | None) for name in ("id", "collection", "state", "href")
    )
