"""What ``kill -9`` leaves of an encode, and what running it again makes of that.

Twenty windows of the real sample are encoded undisturbed, once. Then, for each of fifty moments drawn at random over the
time that this took, they are encoded into a new catalogue and the process is killed at that moment. Every Item must then be
complete or absent, and none be there twice. The same call is made again: it must not touch what was finished, and the
catalogue must equal the undisturbed one byte for byte, but for the time stamps ``updated``. Run with::

    python benchmarks/kills.py            # writes benchmarks/results/kills.json
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import random
import signal
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pystac
import rasterio
from rasterio.windows import Window

STAMPS = ("updated",)
"""Properties of an Item that say when it was made."""
_ENCODE = ("stac_latent.catalog.encode.run", "odc.stac", "stac_latent.stages.context._numba_encode")


def make_items(folder: Path, count: int, size: int) -> list[Path]:
    """Windows of the sample as Items of their own, with GeoTIFFs."""
    from stac_latent.catalog.sample import sample_item

    raw, out = sample_item(folder / "sample"), []
    for i in range(count):
        y, x = 7 * i, 9 * i
        item = raw.clone()
        item.id = f"window-{i:02d}"
        for key, asset in item.assets.items():
            if asset.media_type != pystac.MediaType.COG and not asset.href.endswith(".tif"):
                continue
            path = folder / item.id / f"{key}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            with rasterio.open(raw.assets[key].get_absolute_href() or "") as src:
                part = Window(x, y, size, size)
                profile = {
                    **src.profile,
                    "height": size,
                    "width": size,
                    "transform": src.window_transform(part),
                }
                with rasterio.open(path, "w", **profile) as dst:
                    dst.write(src.read(window=part))
                transform = list(profile["transform"])[:6]
            asset.href = str(path)
            for fields in (asset.extra_fields, item.properties):
                fields |= {"proj:shape": [size, size], "proj:transform": transform}
        path = folder / item.id / "item.json"
        path.write_text(json.dumps(item.to_dict(include_self_link=False, transform_hrefs=False)))
        out.append(path)
    return out


def encode_all(paths: list[Path], dest: Path, codec: str) -> None:
    """Encode Items into a catalogue, in one call."""
    from stac_latent import encode

    encode([pystac.Item.from_file(str(p)) for p in paths], codec, dest)


def run(paths: list[Path], dest: Path, codec: str, kill_after: float | None = None) -> float:
    """Encode in a process of its own, which is killed after some seconds; returns how long it ran."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_ENCODE))
    process = context.Process(target=encode_all, args=(paths, dest, codec))
    start = time.perf_counter()
    process.start()
    process.join(kill_after)
    if kill_after is not None and process.is_alive() and process.pid is not None:
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    if process.exitcode not in (0, -signal.SIGKILL):
        raise RuntimeError(f"encode ended with {process.exitcode}")
    return time.perf_counter() - start


def contents(dest: Path) -> dict[str, bytes]:
    """Every file of a catalogue by its path, Items without their time stamps."""
    out = {}
    for path in sorted(p for p in dest.rglob("*") if p.is_file()):
        data = path.read_bytes()
        if path.suffix == ".json" and b'"updated"' in data:
            doc = json.loads(data)
            for name in STAMPS:
                doc["properties"].pop(name, None)
            data = json.dumps(doc).encode()
        out[path.relative_to(dest).as_posix()] = data
    return out


def written(dest: Path) -> dict[str, tuple[int, int]]:
    """When each file was written, and as which inode."""
    return {
        p.relative_to(dest).as_posix(): (p.stat().st_mtime_ns, p.stat().st_ino)
        for p in dest.rglob("*")
        if p.is_file()
    }


def catalogued(dest: Path, whole: dict[str, bytes]) -> set[str]:
    """Paths of the Items that are there; each must be complete, and linked once at most."""
    now, items = contents(dest), set()
    for path in [p for p in now if p.count("/") == 2 and p.endswith(".json") and p.split("/")[0] != "codecs"]:
        if Path(path).name.startswith("."):
            continue  # a temporary name
        folder = path.rpartition("/")[0]
        for name in (p for p in whole if p.startswith(f"{folder}/")):
            assert now.get(name) == whole[name], f"{path} is catalogued and {name} is not whole"
        items.add(path)
    for path in (p for p in now if p.endswith("collection.json") and not Path(p).name.startswith(".")):
        links = [link["href"] for link in json.loads(now[path])["links"] if link["rel"] == "item"]
        assert max(Counter(links).values(), default=1) == 1, f"{path} links to an item twice"
        assert {f"{path.rpartition('/')[0]}/{h.removeprefix('./')}" for h in links} <= items
    return items


def trial(
    paths: list[Path], dest: Path, codec: str, whole: dict[str, bytes], moment: float
) -> dict[str, Any]:
    """Kill one encode at a moment and run it again; raises AssertionError where a promise is broken."""
    run(paths, dest, codec, kill_after=moment)
    items = catalogued(dest, whole) if dest.exists() else set()
    folders = {i.rpartition("/")[0] for i in items}
    before = {
        p: w for p, w in written(dest).items() if p.rpartition("/")[0].startswith(tuple(folders) or "/")
    }
    litter = [p for p in written(dest) if any(part.startswith(".") for part in Path(p).parts)]
    run(paths, dest, codec)
    after = written(dest)
    again = [p for p, w in before.items() if after.get(p) != w and not p.startswith(".") and p not in litter]
    assert not again, f"done again: {again[:3]}"
    now = contents(dest)
    different = sorted(p for p in now.keys() | whole.keys() if now.get(p) != whole.get(p))
    assert not different, f"differs from the undisturbed catalogue: {different[:5]}"
    return {"moment_s": round(moment, 3), "items_finished": len(items), "files_left_over": len(litter)}


def experiment(
    folder: Path, count: int, kills: int, *, codec: str, size: int, seed: int = 0
) -> dict[str, Any]:
    """Kill encodes of ``count`` Items at ``kills`` random moments."""
    paths = make_items(folder / "raw", count, size)
    run(paths, folder / "warm", codec)
    seconds = run(paths, folder / "whole", codec)
    whole = contents(folder / "whole")
    moments = random.Random(seed)  # noqa: S311 (moments, not secrets)
    trials = []
    for i in range(kills):
        trials.append(trial(paths, folder / f"killed-{i}", codec, whole, moments.uniform(0.0, seconds)))
        print(f"kill {i + 1} of {kills}: {trials[-1]}")
    return {
        "items": count,
        "kills": kills,
        "undisturbed_s": round(seconds, 2),
        "files": len(whole),
        "kills_with_some_items_finished": sum(0 < t["items_finished"] < count for t in trials),
        "kills_that_left_temporary_files": sum(t["files_left_over"] > 0 for t in trials),
        "incomplete_items": 0,
        "items_twice": 0,
        "items_done_again": 0,
        "catalogues_that_differ": 0,
        "trials": trials,
    }


def main() -> None:
    """Run the experiment and write what it found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=20)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--codec", default="s2-10m-4b")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "kills.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = experiment(Path(folder), args.items, args.kills, codec=args.codec, size=args.size)
    found |= {
        "codec": args.codec,
        "python": platform.python_version(),
        "date": datetime.now(UTC).date().isoformat(),
    }
    args.out.write_text(json.dumps(found, indent=1) + "\n")
    print({k: v for k, v in found.items() if k != "trials"})


if __name__ == "__main__":
    main()
