"""Time a search of 10,000 items from stac-geoparquet and from a static catalogue, beside the peers' way.

Run ``python benchmarks/search.py [count]``; writes ``benchmarks/results/search.json``. A time is the least of several
runs; cold is a whole new process, from the interpreter's start to the last item found. Processor time says more than
wall time where other work runs on the machine.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pystac
from shapely.geometry import box, mapping, shape

from stac_latent import search
from stac_latent.catalog.search.stac_geoparquet import to_geoparquet

RESULTS = Path(__file__).parent / "results" / "search.json"
SPACES = [f"sha256:{digit * 64}" for digit in "0123456789"]
BANDS = [f"B{i:02d}" for i in range(1, 13)]
PLACE = (5.0, 40.0, 20.0, 52.0)
AFTER = datetime(2024, 4, 1, tzinfo=UTC)
BEFORE = datetime(2024, 10, 1, tzinfo=UTC)
QUERIES: dict[str, dict[str, Any]] = {
    "place, time, kind, psnr": {"bbox": PLACE, "datetime": (AFTER, BEFORE), "kind": "codec", "min_psnr": 45},
    "space": {"space": SPACES[3]},
    "rate": {"max_bits_per_pixel": 0.2},
    "filter (CQL2)": {"filter": "eo:cloud_cover < 3 AND platform = 'sentinel-2a'"},
    "none matches": {"ids": "no-such-item"},
    "all": {},
}


def make_items(count: int) -> Iterator[pystac.Item]:
    """Items as ``encode`` writes them: 12 raw bands, a thumbnail and a latent, in 50 tiles and one year."""
    for i in range(count):
        tile = i % 50
        west, south = -10 + (tile % 10) * 4.1, 35 + (tile // 10) * 5.3 + (i % 7) * 0.1
        footprint = box(west, south, west + 1.3, south + 1)
        when = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(minutes=(i * 7919) % 525_600)
        codec = i % 4 != 0
        fields: dict[str, Any] = {
            "latent:bits_per_pixel": 0.1 + (i % 97) / 50,
            "latent:psnr": 38 + (i % 23) * 0.5,
        }
        properties = {
            "platform": f"sentinel-2{'ab'[i % 2]}",
            "eo:cloud_cover": float((i * 31) % 100),
            "latent:kinds": ["codec" if codec else "embedding"],
            "latent:spaces": [SPACES[i % 10]],
            **(fields if codec else {}),
        }
        item = pystac.Item(
            f"S2_{i:06d}", mapping(footprint), list(footprint.bounds), when, properties, collection="s2"
        )
        grid = {
            "proj:code": "EPSG:32633",
            "proj:shape": [10980, 10980],
            "proj:transform": [10.0, 0, 6e5, 0, -10.0, 5e6],
        }
        root = f"https://example.com/s2/{i}"
        for band in BANDS:
            asset = pystac.Asset(
                f"{root}/{band}.tif", media_type="image/tiff; application=geotiff", roles=["data"]
            )
            asset.extra_fields = {**grid, "bands": [{"name": band, "data_type": "uint16", "nodata": 0}]}
            item.add_asset(band, asset)
        latent = pystac.Asset(
            f"{root}/l.zarr", media_type="application/vnd.zarr; version=3", roles=["latent"]
        )
        latent.extra_fields = {
            **grid,
            **(fields if codec else {}),
            "latent:kind": properties["latent:kinds"][0],
            "latent:space": SPACES[i % 10],
            "latent:stride": [16, 16],
            "latent:shape": [48, 687, 687],
            "bands": [{"name": b, "data_type": "uint16", "nodata": 0} for b in BANDS],
        }
        item.add_asset("latent", latent)
        item.add_link(pystac.Link("latent:decoder", f"https://example.com/codecs/{i % 10}.json"))
        yield item


def timed(work: Callable[[], Any], repeat: int = 5) -> dict[str, float]:
    """Least wall and processor time [s] of several calls, processes that they start included."""

    def processor() -> float:
        return sum(
            sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        )

    walls, processors = [], []
    for _ in range(repeat):
        start, used = time.perf_counter(), processor()
        work()
        walls.append(time.perf_counter() - start)
        processors.append(processor() - used)
    return {"wall_s": min(walls), "processor_s": min(processors)}


def matches(item: dict[str, Any], query: dict[str, Any]) -> bool:
    """Test an item's dictionary for the first query, as a user of a peer would write it."""
    p = item["properties"]
    when = datetime.fromisoformat(p["datetime"])
    return (
        "codec" in (p.get("latent:kinds") or [])
        and (p.get("latent:psnr") or 0) >= query["min_psnr"]
        and AFTER <= when <= BEFORE
        and shape(item["geometry"]).intersects(box(*query["bbox"]))
    )


def peer_stac_geoparquet(path: Path, query: dict[str, Any]) -> list[pystac.Item]:
    """Find items with stac-geoparquet and pystac: every row becomes a dictionary, those that match become Items."""
    from stac_geoparquet.arrow import stac_table_to_items

    return [pystac.Item.from_dict(d) for d in stac_table_to_items(pq.read_table(path)) if matches(d, query)]


def peer_rustac(path: Path, query: dict[str, Any]) -> list[pystac.Item]:
    """Find items with rustac's reader and pystac."""
    import rustac

    features = rustac.read_sync(str(path))["features"]
    return [pystac.Item.from_dict(d) for d in features if matches(d, query)]


def peer_duckdb(path: Path, query: dict[str, Any]) -> list[str]:
    """Find the ids only, by the bounding box column, in SQL: no Item is made, so this is a floor."""
    import duckdb

    west, south, east, north = query["bbox"]
    sql = f"""select id from '{path}' where "latent:psnr" >= {query["min_psnr"]} and list_contains("latent:kinds", 'codec')
        and datetime between timestamptz '{AFTER}' and timestamptz '{BEFORE}'
        and bbox.xmin <= {east} and bbox.xmax >= {west} and bbox.ymin <= {north} and bbox.ymax >= {south}"""  # noqa: S608
    with duckdb.connect() as connection:
        return [row[0] for row in connection.execute(sql).fetchall()]


def peer_pystac(path: Path, query: dict[str, Any]) -> list[pystac.Item]:
    """Walk a static catalogue with pystac alone."""
    items = pystac.Catalog.from_file(str(path)).get_items(recursive=True)
    return [item for item in items if matches(item.to_dict(transform_hrefs=False), query)]


def cold(path: Path, query: dict[str, Any]) -> dict[str, float]:
    """Time of a search in a new process."""
    code = (
        "import sys, datetime; from stac_latent import search\n"
        f"items = list(search({str(path)!r}, **{query!r}))\nsys.stdout.write(str(len(items)))"
    )
    command = [sys.executable, "-c", code]
    return timed(lambda: subprocess.run(command, check=True, capture_output=True))  # noqa: S603


def show(name: str, found: int, *times: dict[str, float]) -> None:
    """Print one line of results."""
    each = "   ".join(f"{t['wall_s']:7.3f} s ({t['processor_s']:7.3f} s processor)" for t in times)
    print(f"{name:26s} {found:6d} found  {each}")


def measure_parquet(
    path: Path, peers: dict[str, Callable[[Path, dict[str, Any]], list[Any]]]
) -> dict[str, Any]:
    """Time every query, warm and cold, and the first one with each peer that is installed."""
    queries: dict[str, Any] = {}
    for name, query in QUERIES.items():
        found = len(search(path, **query))
        warm = timed(lambda query=query: list(search(path, **query)))
        queries[name] = {"found": found, "warm": warm, "cold": cold(path, query)}
        show(name, found, warm, queries[name]["cold"])
    first = timed(lambda: search(path)[0])
    show("first of all", 1, first)
    name, query = next(iter(QUERIES.items()))
    ours = queries[name]["warm"]
    beside: dict[str, Any] = {}
    for peer_name, peer in peers.items():
        try:
            found = len(peer(path, query))
        except ImportError:
            continue
        theirs = timed(lambda peer=peer: peer(path, query), 3)
        assert found >= queries[name]["found"], peer_name
        beside[peer_name] = {
            **theirs,
            "found": found,
            "times_ours": theirs["processor_s"] / ours["processor_s"],
        }
        show(peer_name, found, theirs)
    return {
        "megabytes": path.stat().st_size / 1e6,
        "queries": queries,
        "first_of_all": first,
        "peers": beside,
    }


def write_static(items: list[pystac.Item], folder: Path) -> Path:
    """Write a catalogue of one file for each item."""
    folder.mkdir()
    for item in items:
        (folder / f"{item.id}.json").write_text(json.dumps(item.to_dict(transform_hrefs=False)))
    links = [{"rel": "item", "href": f"./{item.id}.json"} for item in items]
    catalog = {
        "type": "Catalog",
        "id": "s2",
        "stac_version": "1.1.0",
        "description": "benchmark",
        "links": links,
    }
    path = folder / "catalog.json"
    path.write_text(json.dumps(catalog))
    return path


def measure_static(items: list[pystac.Item], folder: Path) -> dict[str, Any]:
    """Time the first query on static catalogues, and on a tenth of the items with pystac alone (it grows faster)."""
    query = next(iter(QUERIES.values()))
    whole = write_static(items, folder / "whole")
    tenth = write_static(items[: len(items) // 10], folder / "tenth")
    assert len(peer_pystac(tenth, query)) == len(search(tenth, **query))
    result: dict[str, Any] = {
        "whole": timed(lambda: list(search(whole, **query)), 3),
        "first_of_all": timed(lambda: search(whole)[0], 3),
        "tenth": timed(lambda: list(search(tenth, **query)), 3),
        "tenth, pystac alone": timed(lambda: peer_pystac(tenth, query), 3),
    }
    for name, times in result.items():
        show(f"static, {name}", len(search(tenth if "tenth" in name else whole, **query)), times)
    result["pystac_times_ours"] = (
        result["tenth, pystac alone"]["processor_s"] / result["tenth"]["processor_s"]
    )
    return result


def main() -> None:
    """Generate, measure, write the results."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    items = list(make_items(count))
    peers = {
        "stac-geoparquet + pystac": peer_stac_geoparquet,
        "rustac + pystac": peer_rustac,
        "DuckDB, ids only": peer_duckdb,
    }
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        path = to_geoparquet(items, Path(folder) / "items.parquet")
        written = time.perf_counter() - start
        parquet = measure_parquet(path, peers)
        static = measure_static(items, Path(folder))
    names = ("pystac", "pyarrow", "shapely", "stac-geoparquet", "duckdb")
    result = {
        "items": count,
        "machine": {
            "cores": os.cpu_count(),
            "processor": platform.machine(),
            "python": platform.python_version(),
        },
        "versions": {name: version(name) for name in names},
        "write_s": written,
        "parquet": parquet,
        "static": static,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2, default=float) + "\n")
    selective = {n: q for n, q in parquet["queries"].items() if n != "all"}
    slow = [n for n, q in selective.items() if max(q["warm"]["wall_s"], q["cold"]["wall_s"]) > 1]
    if slow:
        print(f"took more than a second: {', '.join(slow)}")


if __name__ == "__main__":
    main()
