"""Latents decoded in headless Chromium: windows of 512 x 512 pixels, and a whole scene at every zoom of the live map.

    python benchmarks/browser.py CATALOG ITEM_ID [--asset latent] [--out benchmarks/results/browser.json] [--shot map.png]

CATALOG is a local folder with ``catalog.json``, ITEM_ID an Item of at least 4096 x 4096 pixels. Files are served from loopback by a
plain server that knows ranges. Needs selenium, chromium and chromedriver. Times depend on what else the machine does: the
load average is part of the result, and of each time the median and the least are given. ``processor_ms`` is what a window takes of a
processor in all processes of the browser together, start and first compilation shared among 32 windows.
"""

from __future__ import annotations

import argparse
import json
import mimetypes
import os
import platform
import re
import tempfile
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

from stac_latent import search, write_live_map

WINDOWS = """const [href, key, workers, windows, done] = arguments;
(async () => {
  const { openAsset, readPixels, HttpSource } = await import(new URL("lib/image.js", location.href).href)
    .then(async (image) => ({ ...image, ...await import(new URL("lib/open.js", location.href).href), ...await import(new URL("lib/source.js", location.href).href) }));
  const { WorkerPool } = await import(new URL("lib/pool.js", location.href).href);
  const runner = workers ? new WorkerPool(workers) : undefined;
  const kept = new Map();
  class Kept extends HttpSource {
    async read(href, range, signal) {
      const name = href + JSON.stringify(range);
      if (!kept.has(name)) kept.set(name, await super.read(href, range, signal));
      return kept.get(name);
    }
  }
  const source = new Kept();
  const image = await openAsset(source, href, key);
  const out = [];
  for (const [y, x] of windows) {
    const times = [];
    for (let k = 0; k < 2; k++) {
      const started = performance.now();
      await readPixels(image, { window: { y, x, height: 512, width: 512 }, runner });
      times.push(performance.now() - started);
    }
    out.push(times);
  }
  runner?.close();
  done(out);
})().catch((error) => done(String(error.stack)));"""

SETTLED = """const done = arguments[0]; const end = performance.now() + 170000;
(function look() {
  if (document.documentElement.dataset.ready === "yes" || performance.now() > end) done(document.documentElement.dataset.ready);
  else setTimeout(look, 20);
})();"""


class Ranges(SimpleHTTPRequestHandler):
    """A folder by HTTP, with ranges."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer with a file, or a part of one."""
        path = Path(self.translate_path(self.path))
        path = path / "index.html" if path.is_dir() else path
        if not path.is_file():
            self.send_error(404)
            return
        size = path.stat().st_size
        start, end, status = 0, size, 200
        if found := re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", "")):
            first, last = found.groups()
            start = int(first) if first else max(0, size - int(last))
            end = min(size, int(last) + 1) if first and last else size
            status = 206
        with path.open("rb") as file:
            file.seek(start)
            body = file.read(end - start)
        self.send_response(status)
        self.send_header("Content-Type", mimetypes.guess_type(path.name)[0] or "application/octet-stream")
        self.send_header("Content-Length", str(len(body)))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        self.end_headers()
        self.wfile.write(body)


def chromium(profile: str) -> Chrome:
    """A headless browser."""
    options = ChromeOptions()
    for flag in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage", "--hide-scrollbars",
        "--window-size=1280,900", f"--user-data-dir={profile}",
    ):  # fmt: skip
        options.add_argument(flag)
    driver = Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    driver.set_script_timeout(200)
    return driver


def spread(times: list[float]) -> dict[str, float]:
    """Median and least of milliseconds."""
    ordered = sorted(times)
    return {"median_ms": round(ordered[len(ordered) // 2], 1), "least_ms": round(ordered[0], 1)}


def processor(profile: str) -> float:
    """Milliseconds of a processor that the browser with this profile has used, all its processes together."""
    total = 0.0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if profile.encode() in (folder / "cmdline").read_bytes():
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                total += (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")
        except OSError:
            continue
    return total


def windows(driver: Chrome, profile: str, href: str, asset: str, side: int) -> dict[str, object]:
    """Windows of 512 x 512 pixels of all bands: on tile borders (4 tiles) and anywhere (up to 9), from memory and over loopback."""
    out: dict[str, object] = {}
    for name, shift in (("four tiles", 0), ("anywhere", 100)):
        places = [[(k * 512 + shift) % (side - 1024), 512 * 3 + shift] for k in range(16)]
        for workers in (0, 1, 2):
            before = processor(profile)
            rows = driver.execute_async_script(WINDOWS, href, asset, workers, places)
            if isinstance(rows, str):
                raise SystemExit(rows)
            out[f"{name}, {workers} workers"] = {
                "first_ms": round(rows[0][0], 1),
                "processor_ms": round((processor(profile) - before) / (2 * len(rows)), 1),
                "read_and_decoded": spread([r[0] for r in rows[1:]]),
                "decoded": spread([r[1] for r in rows[1:]]),
            }
    return out


def zooms(driver: Chrome, url: str, shot: str | None) -> list[dict[str, object]]:
    """The map: the whole scene, then ever closer."""
    rows = []
    driver.get(url)
    for step in range(5):
        started = time.perf_counter()
        before = (
            driver.execute_script("return [latentMap.source.bytes, latentMap.source.requests]")
            if step
            else [0, 0]
        )
        if step:
            driver.execute_script(
                "document.documentElement.dataset.ready = 'no'; latentMap.view.zoom(arguments[0])",
                2 if step < 4 else 4,
            )
        ready = driver.execute_async_script(SETTLED)
        size, requests = driver.execute_script("return [latentMap.source.bytes, latentMap.source.requests]")
        rows.append({
            "shown": driver.execute_script("return document.getElementById('tip').textContent"),
            "bytes": size - before[0], "requests": requests - before[1], "seconds": round(time.perf_counter() - started, 1),
            "complete": ready == "yes",
        })  # fmt: skip
        print(rows[-1], flush=True)
        if shot:
            driver.save_screenshot(f"{Path(shot).with_suffix('')}-{step}.png")
    return rows


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("catalog", type=Path)
    parser.add_argument("item")
    parser.add_argument("--asset", default="latent")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--shot")
    asked = parser.parse_args()
    root = asked.catalog.absolute()
    (item,) = search(root / "catalog.json", ids=asked.item)
    write_live_map(item, root / "map", asset=asked.asset, title=asked.item)
    fields = item.assets[asked.asset].extra_fields
    handler = type(
        "Here", (Ranges,), {"__init__": lambda self, *a: Ranges.__init__(self, *a, directory=str(root))}
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    href = f"{url}/{Path(item.get_self_href()).relative_to(root).as_posix()}"
    with tempfile.TemporaryDirectory() as profile:
        driver = chromium(profile)
        try:
            rows = zooms(driver, f"{url}/map/index.html", asked.shot)
            loads = [os.getloadavg()[0]]
            driver.get(f"{url}/map/map/map.css")
            driver.get(f"{url}/map/items.json")
            result = windows(driver, profile, href, asked.asset, fields["proj:shape"][0])
            version = driver.capabilities["browserVersion"]
        finally:
            driver.quit()
    loads.append(os.getloadavg()[0])
    facts = {
        "scene": {"shape": fields["proj:shape"], "bands": len(fields["bands"]), "bytes": fields["file:size"],
                  "bits_per_pixel": round(fields["latent:bits_per_pixel"], 3), "psnr": round(fields["latent:psnr"], 2)},
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "chromium": version,
                    "load_average": [round(x, 1) for x in loads]},
        "zooms": rows,
        "windows_512": result,
    }  # fmt: skip
    print(json.dumps(facts, indent=1))
    if asked.out:
        asked.out.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
