"""The page in a browser, by clicking: headless Chromium, driven by selenium; skipped where either is absent."""

from __future__ import annotations

import shutil
import time

import numpy as np
import pytest
from map_support import HOSTILE, contents, numbers, plain, sample_items, scattered

import stac_latent

selenium = pytest.importorskip("selenium", reason="selenium is not installed (extra test)")
from selenium.webdriver import ActionChains, Chrome, ChromeOptions, Keys  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.actions.wheel_input import ScrollOrigin  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402

DRIVER, CHROMIUM = shutil.which("chromedriver"), shutil.which("chromium")
pytestmark = pytest.mark.skipif(
    DRIVER is None or CHROMIUM is None,
    reason="chromium and chromedriver are not installed (apt: chromium, chromium-driver)",
)
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", "--hide-scrollbars",
)  # fmt: skip


class Page:
    """One page, and what hands and eyes do with it."""

    def __init__(self, driver, path, *, width=1200, height=760, dark=False):
        self.driver = driver
        media = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        driver.get_log("browser")
        driver.get(path.as_uri())
        self.wait(lambda: self.js("return document.documentElement.dataset.ready") == "yes")

    def js(self, code, *args):
        return self.driver.execute_script(code, *args)

    def wait(self, truth):
        end = time.monotonic() + 20
        while not (found := truth()):
            assert time.monotonic() < end, "the page did not get there"
            time.sleep(0.02)
        return found

    def find(self, name):
        return self.driver.find_element(By.ID, name)

    def text(self, name):
        return self.find(name).text

    def at(self, index, what="items"):
        return self.js("return latentMap.at(arguments[0], arguments[1])", index, what)

    def click(self, x, y):
        """Click at pixels of the map."""
        area = self.find("map")
        dx, dy = x - area.size["width"] / 2, y - area.size["height"] / 2
        ActionChains(self.driver).move_to_element_with_offset(area, round(dx), round(dy)).click().perform()

    def press(self, *keys):
        ActionChains(self.driver).send_keys(*keys).perform()

    def pixels(self):
        """The upper left 80 x 80 pixels of the item's picture as it is shown, (y, x, 4)."""
        code = """
        const c = document.getElementById("picture");
        return Array.from(c.getContext("2d").getImageData(0, 0, 80, 80).data);"""
        return np.array(self.js(code), float).reshape(80, 80, 4)

    def frame(self):
        self.js("latentMap.frame()")


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    options = ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    made = Chrome(options=options, service=Service(DRIVER))
    yield made
    made.quit()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The real sample among three footprints, two of them in one place."""
    items = [
        *sample_items(), plain("east", 30, 10, psnr=40.0, bits_per_pixel=0.5),
        plain("north-a", -60, 60, psnr=50.0, bits_per_pixel=2.0), plain("north-b", -60, 60, psnr=45.0),
    ]  # fmt: skip
    path = tmp_path_factory.mktemp("map") / "map.html"
    stac_latent.write_map(items, path, title="Four items")
    return path


@pytest.fixture
def page(driver, written):
    opened = Page(driver, written)
    yield opened
    said = [e["message"] for e in driver.get_log("browser") if "willReadFrequently" not in e["message"]]
    assert said == []


def test_it_opens_from_a_disk_and_asks_for_nothing(page):
    assert page.driver.title == "Four items"
    assert page.text("count") == "4 items"
    assert [li.text.split("\n")[0] for li in page.driver.find_elements(By.CSS_SELECTOR, "#list li")] == [
        "spyndex-s2-sample", "east", "north-a", "north-b",
    ]  # fmt: skip
    loaded = page.js("return performance.getEntriesByType('resource').map((e) => e.name)")
    assert [name for name in loaded if not name.startswith(("data:", "blob:"))] == []


def test_a_click_chooses_a_footprint_and_another_lets_go(page):
    page.click(*page.at(1))
    assert page.text("name") == "east"
    assert page.text("figures").split("\n") == ["PSNR", "40 dB", "Rate", "0.5 bits per pixel and band"]
    assert not page.find("figure").is_displayed()
    page.click(5, 300)
    assert not page.find("item").is_displayed()


def test_items_in_one_place_are_gone_through(page):
    page.click(*page.at(3))
    assert (page.text("name"), page.text("stack")) == ("north-a", "1 of 2 here")
    page.find("after").click()
    assert (page.text("name"), page.text("stack")) == ("north-b", "2 of 2 here")
    page.find("after").click()
    assert page.text("name") == "north-a"


def test_the_slider_goes_from_raw_over_decoded_to_error(page):
    page.js("latentMap.choose(0)")
    slider = page.find("slider")
    assert [b.text for b in page.find("stops").find_elements(By.TAG_NAME, "button")] == [
        "raw",
        "decoded",
        "error",
    ]
    assert slider.get_attribute("aria-valuetext") == "decoded"
    page.wait(lambda: page.js("return document.getElementById('picture').width") == 300)
    seen = {}
    for name, key in (("raw", Keys.HOME), ("error", Keys.END)):
        slider.send_keys(key)
        assert slider.get_attribute("aria-valuetext") == name
        page.frame()
        seen[name] = page.pixels()
    page.find("stops").find_elements(By.TAG_NAME, "button")[1].click()
    page.frame()
    seen["decoded"] = page.pixels()
    slider.send_keys(*[Keys.ARROW_LEFT] * 25)  # half way to raw
    page.frame()
    half = page.pixels()
    assert np.abs(seen["raw"] - seen["decoded"]).mean() < 8
    assert np.abs(seen["raw"] - seen["error"]).mean() > 30
    assert np.abs(half - (seen["raw"] + seen["decoded"]) / 2).max() <= 2


def test_colours_are_switched(page):
    def first():
        return page.js("return document.querySelector('#list i').style.background"), page.text("ticks").split(
            "\n"
        )

    before, ticks = first()
    assert ticks[1] == "dB"
    page.find("measure").send_keys("Rate")
    after, ticks = first()
    assert before != after
    assert ticks[1] == "bits per pixel and band"
    last = page.driver.find_elements(By.CSS_SELECTOR, "#list .much")[-1]
    assert last.text == "\N{EN DASH}"


def test_similar_places_are_those_of_numpy(page, written):
    places = contents(written)["places"]
    vectors = numbers(places["vectors"], np.int8).reshape(places["count"], -1).astype(np.float64)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    page.js("latentMap.choose(0)")
    query = places["count"] // 2
    page.click(*page.at(query, "places"))
    assert page.text("name") == "spyndex-s2-sample"
    found = page.js("return latentMap.similar()")
    assert found["query"] == query
    cosines = unit @ unit[query]
    order = [i for i in np.argsort(-cosines, kind="stable") if i != query][: len(found["hits"])]
    assert len(order) == 12
    np.testing.assert_allclose(cosines[found["hits"]], cosines[order], atol=1e-6)
    shown = [float(b.text) for b in page.driver.find_elements(By.CSS_SELECTOR, "#hits .much")]
    np.testing.assert_allclose(shown, cosines[order], atol=6e-4)
    assert places["space"] in page.text("origin")
    page.driver.find_elements(By.CSS_SELECTOR, "#hits button")[2].click()
    x, y = page.at(found["hits"][2], "places")
    area = page.find("map").size
    assert 0 < x < area["width"]
    assert 0 < y < area["height"]
    page.find("forget").click()
    assert not page.find("similar").is_displayed()


def test_keys_do_what_hands_do(page):
    page.press(Keys.TAB, Keys.TAB)  # theme, then map
    assert page.js("return document.activeElement.id") == "map"
    x, y = page.at(1)
    page.press(Keys.ARROW_LEFT)
    assert page.at(1) == pytest.approx([x + 80, y])
    page.press(Keys.ARROW_RIGHT, "+")
    width = page.find("map").size["width"]
    assert page.at(1)[0] - width / 2 == pytest.approx(1.6 * (x - width / 2))
    page.press("0")
    assert page.at(1) == pytest.approx([x, y])
    page.press("n")
    assert page.text("name") == "spyndex-s2-sample"
    page.press("s")
    assert page.find("similar").is_displayed()
    page.press("p")
    assert page.text("name") == "north-b"
    page.press(Keys.ESCAPE, Keys.ESCAPE)
    assert not page.find("item").is_displayed()
    assert page.text("status") == "" or page.find("status").get_attribute("aria-live") == "polite"


def test_dragging_and_the_wheel_move_the_map(page):
    area, (x, y) = page.find("map"), page.at(1)
    ActionChains(page.driver).drag_and_drop_by_offset(area, 60, -30).perform()
    assert page.at(1) == pytest.approx([x + 60, y - 30], abs=1)
    assert not page.find("item").is_displayed()
    before = page.at(1)[0] - page.at(2)[0]
    ActionChains(page.driver).scroll_by_amount(0, 0).scroll_from_origin(
        ScrollOrigin.from_element(area), 0, -100
    ).perform()
    page.wait(lambda: page.at(1)[0] - page.at(2)[0] > 1.2 * before)


def test_items_are_found_by_text(page):
    page.find("find").send_keys("NORTH")
    rows = page.driver.find_elements(By.CSS_SELECTOR, "#list button")
    assert [r.text.split("\n")[0] for r in rows] == ["north-a", "north-b"]
    rows[1].click()
    assert page.text("name") == "north-b"
    area = page.find("map").size
    assert page.at(3) == pytest.approx([area["width"] / 2, area["height"] / 2], abs=2)
    page.find("find").send_keys("x")
    assert page.text("list") == "no item has that in its id or date"


def test_light_and_dark(driver, written):
    def ground():
        page.frame()
        code = (
            "return Array.from(document.getElementById('map').getContext('2d').getImageData(2, 2, 1, 1).data)"
        )
        return sum(page.js(code)[:3])

    page = Page(driver, written, dark=True)
    assert ground() < 150
    page.find("theme").click()
    assert ground() > 600


def test_it_fits_a_phone(driver, written):
    page = Page(driver, written, width=360, height=740)
    page.click(*page.at(1))
    assert page.text("name") == "east"
    assert page.js("return document.scrollingElement.scrollWidth") <= 360
    area, key = page.find("map").rect, page.find("key").rect
    assert area["width"] >= 350
    assert area["height"] > 400
    assert key["height"] < area["height"] / 3
    assert min(b.size["height"] for b in driver.find_elements(By.CSS_SELECTOR, "#zoom button")) >= 36


def test_hostile_catalogues_are_text(driver, tmp_path):
    items = [plain(text, 10 + i, psnr=40.0 + i) for i, text in enumerate(HOSTILE)]
    for item, text in zip(items, HOSTILE, strict=True):
        item.collection_id = text
    path = tmp_path / "m.html"
    stac_latent.write_map(items, path, title=HOSTILE[0])
    page = Page(driver, path)
    assert page.text("title") == driver.title == HOSTILE[0]
    for i, text in enumerate(HOSTILE):
        page.js("latentMap.choose(arguments[0])", i)
        shown = page.js("return document.getElementById('name').textContent")
        assert (
            shown.encode("utf-8", "replace") == text.replace("\ud800", "\ufffd").encode() or "\ud800" in text
        )
        page.click(*page.at(i))
    assert page.js("return window.pwned ?? null") is None
    assert page.js("return document.scripts.length") == 2
    assert driver.find_elements(By.CSS_SELECTOR, "img, iframe, object, embed, a") == []
    # What should slip through would not run: the page's policy allows its own script alone, and no connection.
    page.js(
        "document.getElementById('notes').innerHTML = '<img src=\"data:,\" onerror=\"window.pwned = 5\">'"
    )
    page.js(
        "const s = document.createElement('script'); s.textContent = 'window.pwned = 6'; document.body.append(s)"
    )
    blocked = driver.execute_async_script(
        "const done = arguments[0]; fetch('http://127.0.0.1:9/').then(() => done(false), () => setTimeout(() => done(true), 100))"
    )
    assert blocked
    assert page.js("return window.pwned ?? null") is None
    assert all(
        "Content Security Policy" in e["message"] for e in driver.get_log("browser") if e["level"] == "SEVERE"
    )


def test_ten_thousand_footprints_stay_smooth(driver, tmp_path):
    stac_latent.write_map(scattered(10_000), tmp_path / "m.html")
    page = Page(driver, tmp_path / "m.html")
    driver.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})

    def busy():
        found = driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
        return next(m["value"] for m in found if m["name"] == "TaskDuration")

    start = busy()
    page.js("for (let i = 0; i < 8; i++) latentMap.frame()")
    assert (busy() - start) / 8 < 0.1  # seconds of the processor for a whole frame; 0.02 on a slow core
    page.click(*page.at(5000))
    assert page.text("name") in {f"S2_{i:05d}" for i in range(10_000)}
    page.find("find").send_keys("07777")
    assert len(driver.find_elements(By.CSS_SELECTOR, "#list button")) == 1


def test_old_browsers_are_told(driver, tmp_path):
    stac_latent.write_map([plain("a")], tmp_path / "m.html")
    code = "delete globalThis.DecompressionStream"
    script = driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": code})
    driver.get((tmp_path / "m.html").as_uri())
    end = time.monotonic() + 10
    while driver.execute_script("return document.documentElement.dataset.ready") != "failed":
        assert time.monotonic() < end
        time.sleep(0.02)
    driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", {"identifier": script["identifier"]})
    assert "It needs a browser of 2023 or later." in driver.find_element(By.ID, "count").text
