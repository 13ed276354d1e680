"""Encode Items drawn at random, load them, and hold them against their files.

The oracle is plain rasterio for pixels on the file's own grid, and odc-stac for the raw Item on another one. An Item may be refused
with an error of the package. One that is encoded has to come back with the stated error, the same missing pixels, the file's
type and place, and its time in UTC.

    python fuzz/items.py --items 20000 --seed 1          # adds to benchmarks/results/items.json
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import odc.stac
import rasterio
from hypothesis import HealthCheck, Phase, given, seed, settings
from item_cases import Case, cases

from stac_latent import encode, load, open_codec
from stac_latent.codec.codec import Codec
from stac_latent.errors import StacLatentError

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "items.json"
OWN_FAULTS = ("were not read as the raw files have them", "differs from the raw files", "is at fault")
"""Parts of messages of verification: what they tell of is no fault of the Item."""


@functools.cache
def opened(name: str, bands: tuple[str, ...]) -> Codec:
    """A codec, opened once."""
    return open_codec(name, bands=list(bands))


def outcome_of(case: Case, folder: Path) -> tuple[str, str]:
    """``right``, ``refused`` or ``wrong``, and a word on it."""
    item = case.write(folder)
    try:
        codec = opened(case.codec, tuple(b.name for b in case.bands))
        (out,) = encode(item, codec, folder / "catalogue", **case.options)
    except StacLatentError as exc:
        kind = "wrong" if any(fault in str(exc) for fault in OWN_FAULTS) else "refused"
        return kind, f"{type(exc).__name__}: {exc}"
    cube, fields = load(out), out.assets["latent"].extra_fields
    faults = [
        *wrong_pixels(case, cube, fields),
        *wrong_place(case, cube),
        *wrong_on_another_grid(case, item, out, cube, fields),
    ]
    return ("wrong", faults[0]) if faults else ("right", "")


def wrong_pixels(case: Case, cube: Any, fields: dict[str, Any]) -> Iterator[str]:
    """Pixels on the file's own grid."""
    stated = fields.get("latent:band_max_error") or [fields["latent:max_error"]]
    for k, b in enumerate(case.bands):
        raw, valid = case.truth(k)
        got = cube[b.name]
        values, nodata = got.values[0].astype("f8"), got.attrs.get("_FillValue")
        if values.shape != raw.shape:
            yield f"{b.name}: shape {values.shape} of {raw.shape}"
            continue
        there = ~np.isnan(values)
        if nodata is not None and not math.isnan(float(nodata)):
            there &= values != float(nodata)
        if (there != valid).any():
            yield f"{b.name}: {int((there & ~valid).sum())} missing pixels gained a value, {int((valid & ~there).sum())} lost it"
        with np.errstate(invalid="ignore"):
            gap = np.abs(values - raw.astype("f8"))[valid & np.isfinite(raw.astype("f8"))]
        worst = float(gap.max(initial=0.0))
        if worst > stated[k] * (1 + 1e-6) + 1e-6:
            yield f"{b.name}: error {worst:g}, said {stated[k]:g}"
        if isinstance(case.bound, int) and worst > case.bound:
            yield f"{b.name}: error {worst:g} within a bound of {case.bound}"
        if got.dtype != raw.dtype and (case.codec == "zstd" or case.bound == 0):
            yield f"{b.name}: {got.dtype} of {raw.dtype}"


def wrong_place(case: Case, cube: Any) -> Iterator[str]:
    """CRS, transform and time."""
    box = cube.odc.geobox
    if not np.allclose(
        tuple(box.affine)[:6], tuple(case.transform)[:6], rtol=1e-9, atol=1e-4 * case.place[3]
    ):
        yield f"lies at {tuple(box.affine)[:6]}, not {tuple(case.transform)[:6]}"
    if rasterio.crs.CRS.from_user_input(str(box.crs)) != rasterio.crs.CRS.from_user_input(case.crs):
        yield f"CRS {str(box.crs)[:60]}, not {case.crs[:60]}"
    when, want = cube.time.values[0].astype("datetime64[s]"), case.when.astimezone(UTC).replace(tzinfo=None)
    if when != np.datetime64(want, "s"):
        yield f"time {when}, not {want}"


def wrong_on_another_grid(
    case: Case, item: Any, out: Any, cube: Any, fields: dict[str, Any]
) -> Iterator[str]:
    """Every second pixel, from a latent without loss and by odc-stac from a raw Item that tells it all it has to know."""
    told = all(
        b.data_type == "right" and not b.mask and b.own_scale is None and b.tag is not None and b.stated in (None, b.tag)
        for b in case.bands
    )  # fmt: skip
    clear = (
        case.grid == "all"
        and case.turn == "north"
        and not (case.joined or case.picture)
        and case.form == "asset"
    )
    if fields["latent:max_error"] or not told or not clear or min(case.shape) < 4 or case.geometry == "wrong":
        return
    stock = odc.stac.load([item], bands=[b.name for b in case.bands], geobox=cube.odc.geobox.zoom_out(2))
    ours = load(out, like=stock)
    for b in case.bands:
        want, got = stock[b.name].values[0].astype("f8"), ours[b.name].values[0].astype("f8")
        differ = int((~((want == got) | (np.isnan(want) & np.isnan(got)))).sum())
        if differ:
            yield f"{b.name}: {differ} of {want.size} pixels on another grid are not odc-stac's"


def run(count: int, first: int, queue: Any) -> None:
    """Draw and check Items in this process."""
    warnings.simplefilter("ignore")
    folder = Path(tempfile.mkdtemp(prefix="items-"))
    tally: Counter[str] = Counter()
    reasons: Counter[str] = Counter()

    @seed(first)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases())
    def each(case: Case) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            outcome, text = outcome_of(case, folder)
        except Exception:  # noqa: BLE001 - anything but an error of the package is a fault
            outcome, text = "wrong", "".join(traceback.format_exc().splitlines(keepends=True)[-8:])
        tally[outcome] += 1
        if outcome == "wrong":
            print(text[-600:], case, sep="\n", flush=True)
        if outcome == "refused":
            reasons[" ".join(w for w in text.split() if not any(c.isdigit() for c in w))[:110]] += 1

    each()
    shutil.rmtree(folder, ignore_errors=True)
    queue.put((dict(tally), dict(reasons)))


def main() -> None:
    """Split the Items among processes, and keep count."""
    parser = argparse.ArgumentParser(
        description="Encode Items drawn at random and hold them against their files."
    )
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--dry", action="store_true", help="write no results")
    asked = parser.parse_args()
    start = time.perf_counter()
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    share = -(-asked.items // asked.processes)
    workers = [
        context.Process(target=run, args=(share, asked.seed * 1000 + i, queue))
        for i in range(asked.processes)
    ]
    for w in workers:
        w.start()
    tally: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for _ in workers:
        counts, refused = queue.get()
        tally.update(counts)
        reasons.update(refused)
    for w in workers:
        w.join()
    kept = {k: tally[k] for k in ("right", "refused", "wrong")}
    result = {
        "when": datetime.now(UTC).date().isoformat(),
        "seed": asked.seed,
        "seconds": round(time.perf_counter() - start),
        **kept,
    }
    print(json.dumps(result))
    for text, n in reasons.most_common(30):
        print(f"{n:6} {text}")
    if not asked.dry:
        known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"runs": []}
        RESULTS.write_text(json.dumps({"runs": [*known["runs"], result]}, indent=1) + "\n")
    sys.exit(1 if tally["wrong"] else 0)


if __name__ == "__main__":
    os.environ.setdefault("STAC_LATENT_CACHE", tempfile.mkdtemp(prefix="items-cache-"))
    main()
