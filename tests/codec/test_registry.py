"""Finding codecs: by name, folder, Item and space."""

from __future__ import annotations

import pytest
from core_support import BANDS, small_codec

from stac_latent import open_codec
from stac_latent.codec.bundle import save_bundle
from stac_latent.codec.registry import codec_names, remember, resolve_space
from stac_latent.codec.shipped import dct, zstd
from stac_latent.errors import BundleError, CodecError, UnresolvedSpaceError
from stac_latent.spec import Band
from stac_latent.system.files import cache_folder

pytestmark = pytest.mark.usefixtures("fresh_process")

NOWHERE = "sha256:" + "9" * 64


def test_names():
    assert codec_names() == [
        "dct", "era5-surface", "jpeg2000", "landsat-c2l2-6b", "lin", "s1-grd-db", "s2-10m-4b", "s2-10m-embed",
        "s2-l2a-12b", "wavelet", "zstd",
    ]  # fmt: skip


def test_open_by_name_folder_and_object(tmp_path):
    codec = open_codec("dct", bands=BANDS, step=32.0)
    assert open_codec(codec) is codec
    path = save_bundle(codec, tmp_path)
    assert open_codec(path).space == codec.space
    assert open_codec(str(path)).space == codec.space


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("no-such", {}, r"no codec 'no-such': it is neither installed \(dct, .*zstd\) nor a bundle folder"),
        ("dct", {}, r"codec 'dct' takes any bands and needs to be told which: bands=\['B02', ...\]"),
        (
            "dct",
            {"bands": BANDS, "speed": 3},
            r"codec 'dct' does not take these options \(\['bands', 'speed'\]\)",
        ),
        ("jpeg2000", {"bands": BANDS, "quality": 0}, "quality is a percentage"),
        (7, {}, "open_codec takes a name, a bundle folder or a STAC Item; got int"),
    ],
)
def test_errors(name, options, text):
    with pytest.raises((CodecError, BundleError), match=text):
        open_codec(name, **options)


def test_a_folder_takes_no_options(tmp_path):
    save_bundle(small_codec("dct"), tmp_path)
    with pytest.raises(CodecError, match=r"a bundle takes no options; got \['step'\]"):
        open_codec(tmp_path, step=3)
    with pytest.raises(BundleError, match="no codec bundle in"):
        open_codec(tmp_path.parent)


def test_remembered_codecs_resolve():
    codec = dct(BANDS, step=31.0)
    with pytest.raises(UnresolvedSpaceError, match="no codec bundle has digest"):
        resolve_space(codec.space)
    assert remember(codec) is codec
    assert resolve_space(codec.space) is codec
    assert remember(dct(BANDS, step=31.0)) is codec  # an equal one is not kept twice


def test_nodata_is_part_of_the_space():
    first, second = zstd([Band("a", nodata=0)]), zstd([Band("a", nodata=65535)])
    assert first.space != second.space  # decoded pixels keep off it
    assert remember(first).bands[0].nodata == 0
    assert remember(second).bands[0].nodata == 65535


def test_installed_spaces_resolve():
    space = open_codec("s2-10m-4b").space
    assert resolve_space(space).name == "s2-10m-4b"


def test_local_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STAC_LATENT_CACHE", str(tmp_path))
    codec = small_codec("fitted")
    assert cache_folder() == tmp_path
    save_bundle(codec, tmp_path / "codecs" / codec.space.removeprefix("sha256:"))
    assert resolve_space(codec.space).space == codec.space


def test_a_wrong_bundle_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STAC_LATENT_CACHE", str(tmp_path))
    save_bundle(small_codec("fitted"), tmp_path / "codecs" / ("9" * 64))
    with pytest.raises(BundleError, match=rf"the item expects {NOWHERE}"):
        resolve_space(NOWHERE)


def test_unresolved_lists_where_it_looked():
    with pytest.raises(UnresolvedSpaceError) as caught:
        resolve_space(NOWHERE, ["the item's links", "its store"])
    text = str(caught.value)
    assert NOWHERE in text
    for place in (
        "the item's links",
        "its store",
        "codecs opened in this process",
        "installed codecs (dct,",
        str(cache_folder()),
    ):
        assert place in text
    assert "open the bundle first with open_codec(path)" in text


def test_a_broken_plug_in_does_not_break_the_others(monkeypatch):
    from stac_latent.codec import registry

    class Broken:
        name = "broken"

        def load(self):
            raise ImportError("no module named torch")

    honest = registry.entry_points

    def points(group, name=None):
        if name == "broken":
            return [Broken()]
        found = list(honest(group=group) if name is None else honest(group=group, name=name))
        return [*found, Broken()] if name is None else found

    monkeypatch.setattr(registry, "entry_points", points)
    assert "broken" in codec_names()
    space = "sha256:" + "8" * 64
    with pytest.raises(UnresolvedSpaceError, match="broken"):
        resolve_space(space)
    assert len(registry._installed()) >= 3
