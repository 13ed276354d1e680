"""One bad Item does not end a load where that is asked for: it is left out, and named or not."""

from __future__ import annotations

import shutil
import warnings

import numpy as np
import pytest
from load_support import NAMES, encoded, pixel_grid, scene

from stac_latent.cube.bad_items import sound_items
from stac_latent.cube.read.load import load
from stac_latent.errors import CatalogError, CorruptDataError, SourceWarning


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    folder = tmp_path_factory.mktemp("errors")
    return [encoded(folder, f"i{n}", scene((64, 72), seed=n), pixel_grid((64, 72))) for n in range(3)]


def damaged(item, how):
    """The same Item, of which something is wrong."""
    out = item.clone()
    out.set_self_href(item.get_self_href())
    fields = out.assets["latent"].extra_fields
    if how == "no latent":
        del out.assets["latent"]
    elif how == "no grid":
        fields.pop("proj:transform")
    elif how == "no band":
        fields["bands"] = [dict(b, name="X", **{"eo:common_name": "x"}) for b in fields["bands"]]
    elif how == "fields":
        fields["latent:stride"] = "eight"
    return out


@pytest.mark.parametrize("how", ["no latent", "no grid", "no band", "fields"])
@pytest.mark.parametrize(("position", "chunks"), [(0, None), (2, {})], ids=["first, eager", "last, dask"])
def test_an_item_that_is_wrong_is_left_out(three, how, position, chunks):
    items = list(three)
    items[position] = damaged(three[position], how)
    rest = [i for n, i in enumerate(three) if n != position]
    options = {"bands": ["B02", "red"], "groupby": "id", "chunks": chunks}
    want = load(rest, **options)
    with pytest.raises((CatalogError, ValueError)):
        load(items, **options)
    assert load(items, errors="ignore", **options).identical(want)
    assert load(items, fail_on_error=False, **options).identical(want)
    named = rf"1 of 3 item\(s\) cannot be loaded and are left out: 'i{position}': "
    with pytest.warns(SourceWarning, match=named) as said:
        assert load(items, errors="warn", **options).identical(want)
    assert [w.category for w in said].count(SourceWarning) == 1


@pytest.mark.parametrize("upto", ["field", "latent"])
@pytest.mark.parametrize("chunks", [None, {}], ids=["eager", "dask"])
def test_a_store_that_is_gone_leaves_no_data(three, tmp_path, upto, chunks):
    gone = three[1].clone()
    gone.set_self_href(three[1].get_self_href())
    gone.assets["latent"].href = str(tmp_path / "gone.zarr")
    items, options = [three[0], gone, three[2]], {"groupby": "id", "upto": upto, "chunks": chunks}
    with pytest.raises(CorruptDataError, match=r"gone\.zarr is no Zarr v3 group"):
        load(items, **options).compute()
    text = r"asset 'latent' of item 'i1' cannot be read, and is left out: .*gone\.zarr is no Zarr v3 group"
    with pytest.warns(SourceWarning, match=text):
        got = load(items, errors="warn", **options).compute(scheduler="synchronous")
    whole = load(three, groupby="id", upto=upto)
    for name in NAMES if upto == "field" else ["latent"]:
        np.testing.assert_array_equal(got[name].data[[0, 2]], whole[name].data[[0, 2]])
        assert not np.nan_to_num(got[name].data[1]).any()
    with warnings.catch_warnings():
        warnings.simplefilter("error", SourceWarning)
        assert load(items, errors="ignore", **options).compute().identical(got)


def test_others_of_a_time_step_take_the_place(three, tmp_path):
    broken = three[0].clone()
    broken.set_self_href(three[0].get_self_href())
    broken.assets["latent"].href = str(tmp_path / "gone.zarr")
    for method in ("first", "mean"):
        got = load([broken, *three[1:]], ["B02"], errors="ignore", fuse_func=method)
        assert got.equals(load(three[1:], ["B02"], fuse_func=method))


def test_damaged_bytes(three, tmp_path):
    shutil.copytree(three[1].get_self_href().rpartition("/")[0], tmp_path / "copy")
    item = damaged(three[1], None)
    item.assets["latent"].href = str(tmp_path / "copy" / "latent.zarr")
    for chunk in (tmp_path / "copy").rglob("latent.zarr/latent/c/**/*"):
        if chunk.is_file():
            data = bytearray(chunk.read_bytes())
            data[40] ^= 0x10
            chunk.write_bytes(data)
    with pytest.warns(SourceWarning, match="of item 'i1' cannot be read, and is left out: .*do not decode"):
        load([three[0], item], errors="warn")
    named = "^asset 'latent' of item 'i1': .*do not decode.*; fetch the item again, or encode it again with --overwrite"
    with pytest.raises(CorruptDataError, match=named):
        load([three[0], item])


def test_nothing_left_is_an_error(three):
    items = [damaged(i, "no grid") for i in three]
    for errors in ("warn", "ignore"):
        with pytest.raises(ValueError, match="asset 'latent' of item 'i0': the asset has no grid"):
            load(items, errors=errors)
    with pytest.raises(CatalogError, match=r"no band 'rad' \(did you mean 'red'\?\)"):
        load(three, ["rad"], errors="warn")


def test_items_that_do_not_fit_each_other_are_no_bad_items(three):
    other = three[1].clone()
    other.set_self_href(three[1].get_self_href())
    other.assets["latent"].extra_fields["bands"] = [
        dict(b, **{"raster:scale": 0.5}) for b in other.assets["latent"].extra_fields["bands"]
    ]
    with pytest.raises(CatalogError, match="is not stored alike in all items"):
        load([three[0], other], errors="ignore")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"errors": "skip"}, "errors='skip' is unknown; expected one of raise, warn, ignore"),
        (
            {"errors": "raise", "fail_on_error": False},
            "errors='raise' and fail_on_error=False contradict each other",
        ),
        (
            {"errors": "warn", "fail_on_error": True},
            "errors='warn' and fail_on_error=True contradict each other",
        ),
    ],
)
def test_contradictions(three, options, text):
    with pytest.raises(CatalogError, match=text):
        load(three, **options)


def test_many_are_named_shortly(three):
    def make(item):
        if item.id != "i0":
            raise CatalogError(f"reason of {item.id}")
        return item

    bad = [three[1].clone() for _ in range(9)]
    for n, item in enumerate(bad):
        item.id = f"b{n}"
    with pytest.warns(SourceWarning, match="9 of 10 .*'b4': reason of b4; and 4 more: b5, b6, b7, b8$"):
        assert sound_items([(i.id, i) for i in (*bad, three[0])], make, "warn") == [three[0]]
