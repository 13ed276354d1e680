"""A STAC API with many items: how fast they are pushed, searched and paged through.

    python benchmarks/api.py [--items 100000] [--pushed 10000] [--out benchmarks/results/api.json]

Starts stac-fastapi-pgstac on PostgreSQL of its own (see tests/servers/pgstac.py for what that needs), pushes some
synthetic items and loads the others with pypgstac, and asks them in every way that ``search`` offers. Wall-clock times, of the client, the API and the database on one machine.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import shapely

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from servers import pgstac

from stac_latent import push, search
from stac_latent.catalog.push.queryables import INDEXED, queryables

SPACES = [f"sha256:{digit * 64}" for digit in "abcd"]
COLLECTIONS = 4


class Items(Sequence[pystac.Item]):
    """Items all over the land of one hemisphere and three years, made when they are asked for."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: Any) -> Any:
        rng = np.random.default_rng([20261121, i])
        west, south = rng.uniform(-170, 168), rng.uniform(-60, 78)
        when = datetime(2022, 1, 1, tzinfo=UTC) + timedelta(seconds=int(rng.integers(3 * 365 * 86400)))
        place = shapely.box(west, south, west + 1, south + 1)
        properties: dict[str, Any] = {
            "platform": f"sentinel-2{'ab'[i % 2]}",
            "eo:cloud_cover": float(rng.integers(100)),
        }
        if i % 5:
            properties |= {
                "latent:kinds": [["codec"], ["embedding"], ["codec", "embedding"]][i % 3],
                "latent:spaces": [SPACES[i % len(SPACES)]],
            }
            if i % 3 != 1:
                properties |= {
                    "latent:bits_per_pixel": round(float(rng.gamma(4, 0.2)), 4),
                    "latent:psnr": round(float(rng.normal(42, 4)), 3),
                    "latent:max_error": float(rng.integers(1, 400)),
                }
        item = pystac.Item(
            f"item-{i:07d}", shapely.geometry.mapping(place), list(place.bounds), when, properties,
            collection=f"bench-{i % COLLECTIONS}",
        )  # fmt: skip
        for key in ("B02", "B03", "B04", "B08"):
            item.add_asset(
                key, pystac.Asset(f"https://example.com/{i}/{key}.tif", "image/tiff", roles=["data"])
            )
        return item

    def __iter__(self) -> Iterator[pystac.Item]:
        return (self[i] for i in range(self.count))


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that a call takes, and what it returns."""
    start = time.perf_counter()
    value = run()
    return time.perf_counter() - start, value


def median(run: Callable[[], Any], times: int = 5) -> tuple[float, Any]:
    """Median of the seconds of some calls, and what the last returned."""
    done = [timed(run) for _ in range(times)]
    return float(np.median([seconds for seconds, _ in done])), done[-1][1]


def run(count: int, pushed: int, server: pgstac.Pgstac) -> dict[str, Any]:
    """Push, search, page; returns the figures."""
    out: dict[str, Any] = {
        "items": count,
        "pushed": pushed,
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
    }
    items, url = Items(count), server.url
    first = [items[i] for i in range(pushed)]
    show = lambda _label, done, total: print(f"\r{done}/{total}", end="", file=sys.stderr)  # noqa: E731
    cpu = time.process_time()
    out["push_seconds"], done = timed(lambda: push(first, url, batch=1000, progress=show))
    assert done.new == pushed, done
    out["push_client_cpu_seconds"] = time.process_time() - cpu
    out["push_items_per_second"] = pushed / out["push_seconds"]
    print(f"\npushed in {out['push_seconds']:.0f} s", file=sys.stderr)
    server.queryables(queryables(), index=INDEXED)
    out["push_again_seconds"], again = timed(lambda: push(first, url, batch=1000))
    assert again.unchanged == pushed, again
    if pushed < count:
        others = server.folder / "items.ndjson"
        with others.open("w") as file:
            for i in range(pushed, count):
                file.write(
                    json.dumps(items[i].to_dict(include_self_link=False, transform_hrefs=False)) + "\n"
                )
        out["pypgstac_load_seconds"], _ = timed(
            lambda: server.pypgstac("load", "items", others, "--method=insert")
        )
    server.sql("analyze")
    queries: dict[str, dict[str, Any]] = {
        "everything": {},
        "one degree": {"bbox": (10, 45, 11, 46)},
        "a month, 20 degrees": {"bbox": (0, 40, 20, 60), "datetime": "2023-06"},
        "codec, 45 dB": {"kind": "codec", "min_psnr": 45},
        "space, at most 0.5 bpppb": {"space": SPACES[1], "max_bits_per_pixel": 0.5},
        "best of a year": {"kind": "codec", "datetime": "2023", "sortby": "-latent:psnr"},
        "best of all": {"sortby": "-latent:psnr"},
    }
    out["queries"] = {}
    for name, query in queries.items():
        first, page = median(lambda query=query: list(search(url, max_items=100, **query)))
        counted, matched = median(lambda query=query: search(url, **query).matched())
        out["queries"][name] = {"matched": matched, "page_of_100_seconds": first, "matched_seconds": counted}
        if "sortby" in query:
            values = [i.properties["latent:psnr"] for i in page]
            assert values == sorted(values, reverse=True)
        print(name, out["queries"][name], file=sys.stderr)
    assert out["queries"]["everything"]["matched"] == count

    def all_ids(**query: Any) -> int:
        seen = set()
        for i, page in enumerate(search(url, limit=1000, timeout=300, **query).pages()):
            seen |= {item.id for item in page}
            print(f"page {i}: {len(seen)} items after {time.perf_counter() - start:.1f} s", file=sys.stderr)
        return len(seen)

    cpu = time.process_time()
    start = time.perf_counter()
    out["paging_seconds"], seen = timed(all_ids)
    out["paging_client_cpu_seconds"] = time.process_time() - cpu
    assert seen == count, seen
    out["paging_items_per_second"] = count / out["paging_seconds"]
    start = time.perf_counter()
    out["paging_sorted_seconds"], seen = timed(lambda: all_ids(sortby="-latent:psnr"))
    assert seen == count, seen
    out["client_peak_mebibytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    out["database_mebibytes"] = int(server.sql("select pg_database_size('pgstac')")) / 2**20
    return out


def main() -> None:
    """Start the server, run, write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--pushed", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/api.json"))
    args = parser.parse_args()
    if why := pgstac.missing():
        sys.exit(why)
    with pgstac.Pgstac() as server:
        result = run(args.items, min(args.items, args.pushed), server)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
