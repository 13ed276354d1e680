"""The page that decodes latents in the browser: what is written, and, in headless Chromium, what is seen and read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pystac
import pytest
from map_support import SAMPLE, plain, sample_items
from pyproj import Transformer
from servers.files import FileServer

import stac_latent
from stac_latent.errors import CatalogError
from stac_latent.page.live import decoder_folder

ROOT = Path(__file__).parents[2]


@pytest.fixture
def catalogue(tmp_path):
    return Path(shutil.copytree(SAMPLE, tmp_path / "cat", ignore=shutil.ignore_patterns("raw")))


def items_of(catalogue):
    return list(stac_latent.search(catalogue / "catalog.json", ids="spyndex-s2-sample"))


def test_what_is_written(catalogue):
    """All that the page needs lies in its folder; what cannot be shown is named; places are those of the grid."""
    info = stac_latent.write_live_map([*items_of(catalogue), plain("bare")], catalogue / "map", title="<b>")
    assert (info.items, info.serve) == (1, catalogue)
    assert info.notes == ("item 'bare' is left out: it has no latent asset that decodes to pixels",)
    page = catalogue / "map"
    assert sorted(p.name for p in page.iterdir()) == ["index.html", "items.json", "lib", "map"]
    for source in (decoder_folder() / "lib").iterdir():
        assert source.name == "node.js" or (page / "lib" / source.name).read_bytes() == source.read_bytes()
    data = json.loads((page / "items.json").read_text())
    (row,) = data["items"]
    assert data["title"] == "<b>"
    assert (row["id"], row["asset"], row["size"]) == ("spyndex-s2-sample", "latent", [300, 300])
    assert (page / row["href"]).resolve() == catalogue / "s2-sample/spyndex-s2-sample/spyndex-s2-sample.json"
    lon, lat = Transformer.from_crs("EPSG:32618", 4326, always_xy=True).transform(603000, 4497020)
    x, y = row["points"][-2:]
    assert x * 360 - 180 == pytest.approx(lon, abs=1e-9)
    assert np.degrees(np.arctan(np.sinh(np.pi * (1 - 2 * y)))) == pytest.approx(lat, abs=1e-9)
    # Written again, it takes the place of what was there.
    assert stac_latent.write_live_map(items_of(catalogue), page, asset="latent").items == 1


def test_a_folder_with_other_things_stays(catalogue):
    before = sorted(p.name for p in catalogue.iterdir())
    with pytest.raises(
        CatalogError, match=r"is no page of this kind; name a folder of its own, such as .*map"
    ):
        stac_latent.write_live_map(items_of(catalogue), catalogue)
    assert sorted(p.name for p in catalogue.iterdir()) == before
    with pytest.raises(CatalogError, match="is a file; a live page is a folder"):
        stac_latent.write_live_map(items_of(catalogue), catalogue / "catalog.json")


def test_items_that_no_browser_could_read(tmp_path):
    (item,) = sample_items()
    item.set_self_href("s3://bucket/item.json")
    with pytest.raises(
        CatalogError, match=r"none of 2 items can be shown\..* browsers cannot read s3://bucket"
    ):
        stac_latent.write_live_map([item, plain("bare")], tmp_path / "map")
    unsaved = pystac.Item.from_dict(item.to_dict(include_self_link=False))
    with pytest.raises(CatalogError, match="no address of its own"):
        stac_latent.write_live_map(unsaved, tmp_path / "map")
    assert not (tmp_path / "map").exists()


def test_the_command(run, catalogue):
    words = ("map", catalogue / "catalog.json", catalogue / "map", "--live")
    code, out, _ = run(*words)
    assert code == 0
    assert "3 items" in out
    assert "open map/" in " ".join(out.split())
    assert run(*words)[0] == 1
    assert json.loads(run(*words, "--overwrite", "--json")[1])["items"] == 3


DRIVER, CHROMIUM = shutil.which("chromedriver"), shutil.which("chromium")
needs_chromium = pytest.mark.skipif(
    DRIVER is None or CHROMIUM is None, reason="needs chromium and chromedriver"
)


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    selenium = pytest.importorskip("selenium", reason="selenium is not installed (extra test)")
    from selenium.webdriver.chrome.service import Service

    options = selenium.webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    flags = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage")
    for flag in (*flags, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    made = selenium.webdriver.Chrome(options=options, service=Service(DRIVER))
    made.set_script_timeout(60)
    yield made
    made.quit()


SETTLED = """const done = arguments[0]; const end = performance.now() + 40000;
(function look() {
  if (document.documentElement.dataset.ready === "yes" || performance.now() > end) done(document.documentElement.dataset.ready);
  else setTimeout(look, 50);
})();"""


@needs_chromium
def test_pan_and_zoom_decode_in_the_browser(driver, catalogue):
    """Coarse zooms read a part of the bytes; other bands need none; what is drawn is the decoded scene."""
    stac_latent.write_live_map(items_of(catalogue), catalogue / "map", asset="latent")
    with FileServer(catalogue) as server:
        driver.get(f"{server.url}/map/index.html#10/40.6313/-73.8")
        assert driver.execute_async_script(SETTLED) == "yes"
        chunk = [r for r in server.requests if r.path.endswith("latent/c/0/0/0")]
        whole = (catalogue / "s2-sample/spyndex-s2-sample/latent.zarr/latent/c/0/0/0").stat().st_size
        assert 0 < sum(r.sent for r in chunk) < 0.5 * whole
        assert "of the wavelet levels left out" in driver.find_element("id", "tip").text
        driver.execute_script(
            "document.documentElement.dataset.ready = 'no'; document.getElementById('all').click()"
        )
        assert driver.execute_async_script(SETTLED) == "yes"
        shown = driver.execute_script(
            """const map = document.getElementById('map'); const d = map.getContext('2d');
            const at = [...d.getImageData(0, 0, map.width, map.height).data];
            const lit = at.filter((v, i) => i % 4 === 3 && v === 255).length;
            return [lit / (at.length / 4), Math.max(...[...d.getImageData(map.width / 2, map.height / 2, 9, 9).data].slice(0, 3)),
                    document.getElementById('problem').hidden];"""
        )
        assert shown[0] > 0.3
        assert shown[2]
        said = [e["message"] for e in driver.get_log("browser") if "willReadFrequently" not in e["message"]]
        assert said == []
        failing = [r.path for r in server.requests if r.status >= 400]
        assert failing == []


KIT = """const done = arguments[0]; (async () => {
  const { openAsset, readPixels, HttpSource } = await import("/js/index.js");
  const { WorkerPool } = await import("/js/lib/pool.js");
  const { inflate } = await import("/js/lib/zarr.js");
  const base = `${location.origin}/conformance/`, runner = new WorkerPool(2), source = new HttpSource(), wrong = [], passed = [];
  const { cases } = await (await fetch(`${base}manifest.json`)).json();
  for (const one of cases) {
    if (one.want !== "pixels" || one.outcome !== "decoded" || !arguments_features.includes(one.feature)) continue;
    try {
      const image = await openAsset(source, new URL(one.item, `${base}${one.folder}/`).href, one.asset, { key: one.key });
      const arrays = await readPixels(image, { runner });
      const packed = new Uint8Array(await (await fetch(`${base}${one.expected}`)).arrayBuffer());
      const bytes = await inflate(packed, "gzip", 2 ** 28);
      let at = bytes.indexOf(10) + 1;
      for (const { data } of arrays) for (const byte of new Uint8Array(data.buffer)) if (byte !== bytes[at++]) throw new Error("differs");
      if (at !== bytes.length) throw new Error("is of another length");
      passed.push(one.name);
    } catch (error) { wrong.push(`${one.name}: ${error.message}`); }
  }
  runner.close();
  done([passed, wrong]);
})().catch((error) => done([[], [String(error)]]));"""


@needs_chromium
def test_the_conformance_kit_in_chromium(driver):
    """Bit for bit, in workers, by range requests."""
    cases = json.loads((ROOT / "extensions/latent/conformance/manifest.json").read_text())["cases"]
    features = sorted({c["feature"] for c in cases if c["outcome"] == "decoded"})
    with FileServer(ROOT / "extensions" / "latent") as server:
        driver.get(f"{server.url}/js/map/map.css")
        passed, wrong = driver.execute_async_script(KIT.replace("arguments_features", json.dumps(features)))
    assert wrong == []
    wanted = [
        c["name"]
        for c in cases
        if c["feature"] in features and (c["outcome"], c["want"]) == ("decoded", "pixels")
    ]
    assert passed == wanted
