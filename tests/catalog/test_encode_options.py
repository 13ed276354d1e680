"""Keywords of ``encode`` become one object: what is unknown or does not go together, and what makes two encodes the same."""

from __future__ import annotations

import warnings

import pytest
from core_support import make_scene, nothing_catalogued, scene_field, small_codec

from stac_latent import encode
from stac_latent.catalog.encode import run as module
from stac_latent.catalog.encode.options import EncodeKeywords, SourceGrid
from stac_latent.codec.shipped import lin
from stac_latent.errors import CatalogError, SkippedWarning
from stac_latent.secure import Key

KEY = Key(bytes(32))


@pytest.fixture
def scenes(tmp_path):
    return [make_scene(tmp_path / "raw", scene_field((40, 48), i), name=f"s{i}").item for i in range(3)]


def keywords(**given):
    out = {
        "asset": "latent", "mode": "beside", "overwrite": False, "on_error": "raise", "payload": None, "target": {},
        "error_bound": None, "references": None, "guard": None, "fallback_bound": 0.0, "checks": (), "key": None,
        "pixels": SourceGrid(),
    }  # fmt: skip
    return EncodeKeywords(**out | given)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"mode": "besides"}, r"mode='besides' \(did you mean 'beside'\?\); expected 'beside' or 'derived'"),
        ({"on_error": "raised"}, r"on_error='raised' \(did you mean 'raise'\?\); expected 'raise' or 'skip'"),
        ({"payload": "plane"}, r"payload='plane' \(did you mean 'plain'\?\); expected 'coded' or 'plain'"),
        ({"guard": "wran"}, r"guard='wran' \(did you mean 'warn'\?\); expected 'warn', 'fallback', 'refuse', 'off'"),
        ({"asset": "a/b"}, r"asset 'a/b' cannot be a file name"),
        ({"key": KEY, "references": 2}, r"leave out references= or key="),
        ({"key": KEY, "guard": "fallback"}, r"has no guard: it was never calibrated"),
        ({"fallback_bound": 2}, r"fallback_bound=2 is for guard='fallback' \(--guard fallback\) alone"),
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path, scenes, given, text):
    with pytest.raises(CatalogError, match=text):
        keywords(**given).checked(lin(["red", "nir"]))
    with pytest.raises(CatalogError, match=text):
        encode(scenes[0], lin(["red", "nir"]), tmp_path / "cat", **given)
    nothing_catalogued(tmp_path / "cat")


def test_fingerprints_stay_what_they_were():
    """They are part of stored digests: with another one, Items that are finished would be encoded again."""
    codec = lin(["red", "nir"])
    target = {"psnr": None, "max_bits_per_pixel": None, "max_error": None, "quality": None, "step": None}
    own = {
        "space": codec.space, "target": target | {"overhead": 0, "samples": None}, "payload": "coded", "reference": None,
    }  # fmt: skip
    assert keywords().checked(codec).fingerprint(None) == own
    assert keywords(guard="off", mode="derived", overwrite=True).checked(codec).fingerprint(None) == own
    made = keywords(target={"psnr": 40}, error_bound={"red": 1, "nir": "1%"}, key=KEY, checks="psnr>=20:warn")
    assert made.checked(codec).fingerprint(None) == own | {
        "target": own["target"] | {"psnr": 40},
        "encrypt": KEY.id,
        "error_bound": "1, 1%",
        "checks": ["psnr>=20:warn"],
    }


def test_bounds_follow_the_bands_of_another_codec():
    options = keywords(error_bound={"red": 1, "nir": 2}).checked(lin(["red", "nir"]))
    assert options.for_codec(options.codec) is options
    other = options.for_codec(lin(["nir", "red"]))
    assert options.error_bound.values == (1, 2)
    assert other.error_bound.values == (2, 1)


def test_sources_are_opened_once(tmp_path, scenes, monkeypatch):
    opened, honest = [], module.codec_for

    def codec_for(item, *args, **options):
        opened.append(item.id)
        return honest(item, *args, **options)

    monkeypatch.setattr(module, "codec_for", codec_for)
    encode(scenes, lin(["red", "nir"]), tmp_path / "cat", references=3)
    assert sorted(opened) == ["s0", "s1", "s2"]


def test_warnings_are_at_the_caller(tmp_path, scenes):
    for asset in scenes[1].assets.values():
        asset.href = str(tmp_path / "gone.tif")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        encode(scenes, small_codec("zstd"), tmp_path / "cat", on_error="skip")
    (skipped,) = (w for w in caught if w.category is SkippedWarning)
    assert skipped.filename == __file__
