"""What latents cost to make and to send: the figures of the review that the constants are from, and real items."""

import math

import pystac
import pytest

from stac_latent import search
from stac_latent.catalog.cost import (
    Cost,
    CostConstants,
    ItemBytes,
    Work,
    break_even,
    cost,
    encoding,
    item_bytes,
    measured,
    read_downloads,
    transfer,
)
from stac_latent.errors import CatalogError

PETABYTE, TERABYTE = 1e6, 1e3
SAMPLE = "catalogs/sample/catalog.json"


def test_encoding_of_a_gigabyte_and_of_a_year_of_an_archive():
    assert encoding(1).seconds == pytest.approx(6.67, abs=0.01)
    assert encoding(1).kwh * 1000 == pytest.approx(1.11, abs=0.01)
    year = encoding(10 * PETABYTE)
    assert year.kwh / 1000 == pytest.approx(11.1, abs=0.05)
    assert year.seconds / (365.25 * 86_400) == pytest.approx(2.11, abs=0.01)


def test_downloads_of_a_year_and_what_a_hundredth_of_them_takes():
    pixels, latents = transfer(100 * PETABYTE), transfer(PETABYTE)
    assert (pixels.kwh / 1e6, pixels.usd / 1e6) == pytest.approx((1.0, 2.0))
    assert (latents.kwh / 1e6, latents.usd / 1e6) == pytest.approx((0.01, 0.02))


@pytest.mark.parametrize(("terabytes", "days"), [(56, 52), (12, 11)])
def test_days_on_a_line(terabytes, days):
    assert round(transfer(terabytes * TERABYTE).seconds / 86_400) == days


def test_break_even_is_where_both_have_taken_the_same():
    made, decode = encoding(3), Work(1, 0.004)
    least = break_even(3, 0.2, made, decode)
    latents = made.kwh + least * (transfer(0.2).kwh + decode.kwh)
    assert latents == pytest.approx(least * transfer(3).kwh)
    assert break_even(3, 0.2, made, Work(1, 0.028)) == math.inf, "a decode that takes what its download saves"
    whole = Cost([ItemBytes("a", int(0.2e9), int(3e9), None)], made, decode)
    energy = whole.after(whole.break_even)
    assert energy["pixels"].kwh == pytest.approx(energy["latents"].kwh)


def test_the_sample_by_what_its_items_say(monkeypatch):
    first, *_ = search(SAMPLE, ids=["spyndex-s2-sample"])
    size = item_bytes(first, "latent")
    assert size.pixels == 300 * 300 * 4 * 2
    assert 0 < size.latent < size.files < size.pixels * 1.1
    found = cost(search(SAMPLE), asset="latent", measure=1, encode_seconds=2)
    assert found.raw_gb == sum(i.files for i in found.items) / 1e9
    assert found.encode == Work(2, pytest.approx(2 * 10 * 1.5 / 3.6e6), "CPU seconds")
    assert found.decode.seconds > 0
    assert found.decode.basis in ("RAPL", "CPU seconds")
    with pytest.raises(
        CatalogError, match="has several latents of pixels: latent, plain; choose one with asset="
    ):
        item_bytes(first)
    first.assets = {k: a for k, a in first.assets.items() if k == "latent"}
    assert item_bytes(first, "latent").files is None, "raw files that are not there count as pixels"
    with pytest.raises(CatalogError, match=r"no item has latents of pixels whose size is known \(kind codec"):
        cost([pystac.Item("x", None, None, first.datetime, {})])


def test_items_that_were_read_often_enough():
    sizes = [ItemBytes(name, 10**6, 10**8, None) for name in "abc"]
    found = Cost(sizes, encoding(0.3), Work(0, 0))
    assert found.break_even == pytest.approx(0.1122, abs=1e-3)
    assert found.worthwhile({"a": 0.11, "b": 0.2, "x": 9}) == ["b"]
    assert found.worthwhile({"a": 1, "b": 2, "c": 0}) == ["b", "a"]


def test_energy_of_the_machine_where_it_tells(tmp_path):
    counter = tmp_path
    (counter / "max_energy_range_uj").write_text("1000000000")

    def at(value):
        (counter / "energy_uj").write_text(str(value))

    at(500)
    _, work = measured(lambda: at(3_600_500), counter=counter)
    assert (work.basis, work.kwh) == ("RAPL", pytest.approx(1.5e-6))
    at(999_000_000)
    _, work = measured(lambda: at(2_600_000), counter=counter)
    assert work.kwh == pytest.approx(1.5e-6), "the counter began anew"
    _, work = measured(lambda: None, counter=tmp_path / "none")
    assert work.basis == "CPU seconds"


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"watts": 1.0}, "no constant is called 'watts'; there are transfer_kwh_per_gb"),
        ({"cpu_watts": 0.0}, r"cpu_watts is 0.0, expected a finite number above 0"),
        ({"ratio": math.nan}, r"ratio is nan, expected a finite number above 0"),
    ],
)
def test_constants_that_are_refused(values, text):
    with pytest.raises(CatalogError, match=text):
        CostConstants().changed(values)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"id,n\na,1\n", r"has the columns \['id', 'n'\], expected 'item'"),
        (b"item,downloads\na,-1\n", "line 2: '-1' is no number of downloads"),
        (b"item,downloads\na,many\n", "line 2: 'many' is no number of downloads"),
        (b"\xff\xfe\x00", "cannot read"),
        (b"", "has the columns None"),
    ],
)
def test_logs_that_are_refused(tmp_path, content, text):
    path = tmp_path / "log.csv"
    path.write_bytes(content)
    with pytest.raises(CatalogError, match=text):
        read_downloads(path)


def test_a_log_counts_rows_or_numbers(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("item\na\nb\na\n")
    assert read_downloads(path) == {"a": 2, "b": 1}
    path.write_text("item,downloads\na,2.5\na,1\n")
    assert read_downloads(path) == {"a": 3.5}
