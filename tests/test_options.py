"""Options mean what they say: the step that was asked for, targets that are heeded, and no option that is not known."""

from __future__ import annotations

import numpy as np
import pystac
import pytest
from core_support import make_scene, nothing_catalogued, scene_field, small_codec

import stac_latent
from stac_latent import encode, load, open_codec
from stac_latent.codec.registry import remember, resolve_space
from stac_latent.codec.shipped import lin
from stac_latent.errors import CatalogError, CodecError, OptionError, StacLatentError
from stac_latent.field.rate_target import Target
from stac_latent.spec import Band

X = np.random.default_rng(0).integers(500, 3000, (4, 64, 64), dtype=np.uint16)


@pytest.fixture
def scene(tmp_path):
    return make_scene(tmp_path / "raw", scene_field((64, 72))).item


@pytest.mark.usefixtures("fresh_process")
def test_each_step_is_the_one_asked_for():
    coarse = open_codec("s2-10m-4b", step=640)
    fine = open_codec("s2-10m-4b", step=40)
    own = open_codec("s2-10m-4b")
    assert coarse.space == fine.space == own.space
    sizes = [len(c.compress(X)) for c in (coarse, own, fine)]
    assert sizes == [len(own.compress(X, step=640)), len(own.compress(X)), len(own.compress(X, step=40))]
    assert sizes == sorted(set(sizes))
    assert len(open_codec("s2-10m-4b", step=640).compress(X)) == sizes[0]
    assert resolve_space(own.space).searches is False  # whoever asks by space has the codec's own rate


@pytest.mark.usefixtures("fresh_process")
def test_steps_of_error_bounds_and_several_grids():
    codec = open_codec("s2-10m-4b", step=400)
    assert len(codec.compress(X, error_bound=50)) == len(
        open_codec("s2-10m-4b").compress(X, error_bound=50, step=400)
    )
    native = lin([Band("a", gsd=10), Band("b", gsd=20)])
    fields = [X[:1], X[1:2, ::2, ::2]]
    aimed = native.with_target(Target(step=4))
    assert aimed.compress(fields) == native.compress(fields, step=4) != native.compress(fields)


@pytest.mark.usefixtures("fresh_process")
def test_steps_reach_the_catalogue(tmp_path, scene):
    for step in (640, 40):
        encode(
            scene, lin(["red", "nir"]).with_target(Target(step=step)), tmp_path / "cat", asset=f"step{step}"
        )
    item = pystac.Item.from_file(str(next((tmp_path / "cat" / "scenes").glob("*/scene.json"))))
    rates = [item.assets[f"step{s}"].extra_fields["latent:bits_per_pixel"] for s in (640, 40)]
    assert rates[0] < rates[1]
    for step in (640, 40):
        cube = load(item, asset=f"step{step}")
        assert len(cube) == 2


@pytest.mark.parametrize(
    "target", [{"psnr": 42}, {"quality": 80}, {"step": 3}, {"max_error": 5}, {"max_bits_per_pixel": 1}]
)
def test_plain_latents_have_no_rate(tmp_path, scene, target):
    ((name, value),) = target.items()
    text = rf"payload='plain' stores the latents as they are, at no rate, so that {name}={value} would not be heeded: leave it out"
    with pytest.raises(CatalogError, match=text):
        encode(scene, lin(["red", "nir"]), tmp_path / "cat", payload="plain", **target)
    with pytest.raises(CatalogError, match=text):
        encode(scene, lin(["red", "nir"]).with_target(Target(**target)), tmp_path / "cat", payload="plain")
    nothing_catalogued(tmp_path / "cat")


def test_plain_latents_without_a_target(tmp_path, scene):
    (item,) = encode(scene, lin(["red", "nir"]), tmp_path / "cat", payload="plain")
    assert "latent:bitstream" not in item.assets["latent"].extra_fields
    (bounded,) = encode(
        scene, lin(["red", "nir"]), tmp_path / "cat", payload="plain", error_bound=1, asset="bounded"
    )
    assert bounded.assets["bounded"].extra_fields["latent:max_error"] <= 1


def test_forms_that_there_are_not(tmp_path, scene):
    with pytest.raises(
        CatalogError, match=r"payload='codde' \(did you mean 'coded'\?\); expected 'coded' or 'plain'"
    ):
        encode(scene, small_codec(), tmp_path / "cat", payload="codde")
    nothing_catalogued(tmp_path / "cat")


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda i, d: encode(i, "s2-10m-4b", d, pnsr=40), r"encode\(\) has no option 'pnsr' \(did you mean 'psnr'\?\); it takes items, codec"),
        (lambda i, d: encode(i, "s2-10m-4b", d, overhead=4), r"encode\(\) has no option 'overhead'"),
        (lambda i, d: encode(i, "s2-10m-4b", d, samples=4), r"encode\(\) has no option 'samples'"),
        (lambda i, d: encode(i, dest=d), r"encode\(\): missing a required argument: 'codec'; it takes items"),
        (lambda i, d: load(i, band=["red"]), r"load\(\) has no option 'band' \(did you mean 'bands'\?\)"),
        (lambda i, d: load(i, driver="rio"), r"load\(\) has no option 'driver'; it takes items, bands"),
        (lambda i, d: stac_latent.search(i, min_pnsr=3), r"search\(\) has no option 'min_pnsr' \(did you mean 'min_psnr'\?\)"),
        (lambda i, d: stac_latent.publish(i, d / "v.parquet", dtpye="int8"), r"publish\(\) has no option 'dtpye' \(did you mean 'dtype'\?\)"),
        (lambda i, d: stac_latent.nearest("t.parquet", i, kk=3), r"nearest\(\) has no option 'kk'"),
        (lambda i, d: stac_latent.adopt("f.tif", prodcut="x"), r"adopt\(\) has no option 'prodcut' \(did you mean 'product'\?\)"),
        (lambda i, d: stac_latent.fit(i, d, pixel=3), r"fit\(\) has no option 'pixel' \(did you mean 'pixels'\?\)"),
        (lambda i, d: stac_latent.fit(i, d, psrn=3), r"fit\(\) has no option 'psrn' \(did you mean 'psnr'\?\)"),
        (lambda i, d: stac_latent.coverage(i, min_pnsr=3), r"coverage\(\) has no option 'min_pnsr' \(did you mean 'min_psnr'\?\)"),
        (lambda i, d: stac_latent.load_table(i, colunms=3), r"load_table\(\) has no option 'colunms'"),
        (lambda i, d: stac_latent.write_map(i, d, titel="a"), r"write_map\(\) has no option 'titel'"),
        (lambda i, d: lin(["a"]).compress(X[:1], overhead=4), r"compress\(\) has no option 'overhead'"),
        (lambda i, d: lin(["a"]).compress(X[:1], pnsr=4), r"compress\(\) has no option 'pnsr' \(did you mean 'psnr'\?\)"),
        (lambda i, d: lin(["a"]).compress(X[:1], error_bound=1, pnsr=4), r"compress\(\) has no option 'pnsr'"),
        (lambda i, d: lin(["a"]).compress([X[:1]], samples=4), r"compress\(\) has no option 'samples'"),
        (lambda i, d: open_codec(i, assett="a"), r"codec_of_item\(\) has no option 'assett' \(did you mean 'asset'\?\)"),
    ],
)  # fmt: skip
def test_unknown_options_are_named(tmp_path, scene, call, text):
    with pytest.raises(OptionError, match=text) as caught:
        call(scene, tmp_path / "out")
    assert isinstance(caught.value, StacLatentError)
    assert isinstance(caught.value, TypeError)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        (
            "s2-10m-4b",
            {"stpe": 4},
            r"codec 's2-10m-4b' does not take these options .* it has no 'stpe' \(did you mean 'step'\?\); it takes step$",
        ),
        (
            "s2-10m-4b",
            {"bands": ["B02"]},
            r"it has no 'bands'; it takes step; its bands are fixed, and encode\(bands=\) pairs them",
        ),
        (
            "zstd",
            {"bands": ["a"], "efort": 3},
            r"it has no 'efort' \(did you mean 'effort'\?\); it takes bands, effort",
        ),
        ("s2-10m-embed", {"step": 4}, r"it has no 'step'; it takes none"),
        ("s2-10m-4", {}, r"no codec 's2-10m-4' \(did you mean 's2-10m-4b'\?\)"),
    ],
)
def test_unknown_options_of_codecs(name, options, text):
    with pytest.raises(CodecError, match=text):
        open_codec(name, **options)


@pytest.mark.parametrize("value", ["42", True, [42]])
def test_targets_are_numbers(tmp_path, scene, value):
    with pytest.raises(CodecError, match=r"psnr must be a number; got "):
        encode(scene, lin(["red", "nir"]), tmp_path / "cat", psnr=value)
    nothing_catalogued(tmp_path / "cat")


def test_the_command_refuses_likewise(run, tmp_path, scene):
    path = tmp_path / "item.json"
    scene.save_object(include_self_link=False, dest_href=str(path))
    code, _, said = run(
        "encode", path, "cat", "--codec", "lin", "--bands", "red,nir", "--payload", "plain", "--psnr", "42"
    )
    assert code == 1
    assert "psnr=42 would not be heeded" in said
    code, _, said = run("encode", path, "cat", "--codec", "s2-10m-4b", "--bands", "B02")
    assert code == 1
    assert "it has no 'bands'; it takes step" in said
    assert not (tmp_path / "cat").exists()


@pytest.mark.usefixtures("fresh_process")
def test_remembering_keeps_no_target():
    codec = lin(["a"]).with_target(Target(psnr=30))
    assert remember(codec) is codec
    assert resolve_space(codec.space).searches is False


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"resampling": "bilinear"}, r"resampling='bilinear' without resolution=: .* nothing is resampled"),
        (
            {"resampling": "averge", "resolution": 20},
            r"resampling='averge' \(did you mean 'average'\?\) is unknown; expected one of nearest",
        ),
        ({"fallback_bound": 2}, r"fallback_bound=2 is for guard='fallback' \(--guard fallback\) alone"),
        ({"fallback_bound": 2, "guard": "off"}, r"fallback_bound=2 is for guard='fallback'"),
    ],
)
def test_options_that_would_do_nothing(tmp_path, scene, options, text):
    with pytest.raises(StacLatentError, match=text):
        encode(scene, lin(["red", "nir"]), tmp_path / "cat", **options)
    nothing_catalogued(tmp_path / "cat")
