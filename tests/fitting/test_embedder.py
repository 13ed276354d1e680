"""Models of others as embedders: what a graph gives is what is stored, in whichever pieces a scene is read, and what does not fit is refused."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import rasterio
from core_support import make_scene, scene_field

from stac_latent import embedder, encode, load, open_codec, publish, verify
from stac_latent.codec import save_bundle
from stac_latent.codec.bundle import read_bundle, write_bundle
from stac_latent.errors import BundleError, CatalogError, CodecError, FieldError
from stac_latent.spec import Band
from stac_latent.stages import onnx as stage_module
from stac_latent.testing import CodecConformance

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

RED_NIR = ["red", "nir"]
SCALES = {"mean": [1500.0, 2500.0], "std": [700.0, 900.0]}


def graph(nodes, weights, shape, outputs, *, kind=TensorProto.FLOAT, opset=17, more=()):
    x = helper.make_tensor_value_info("image", kind, shape)
    given = [helper.make_tensor_value_info(n, kind, None) for n in outputs]
    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items()]
    g = helper.make_graph(nodes, "g", [x, *more], given, tensors)
    return helper.make_model(
        g, opset_imports=[helper.make_opsetid("", opset)], ir_version=9
    ).SerializeToString()


def filters(channels, bands, size, seed=0):
    return np.random.default_rng(seed).normal(size=(channels, bands, size, size)).astype(np.float32) / size


def pooled(side=None, bands=2, channels=6, batch="n"):
    """Convolution, then the mean of the image: one vector."""
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Tanh", ["a"], ["b"]),
        helper.make_node("GlobalAveragePool", ["b"], ["c"]),
        helper.make_node("Flatten", ["c"], ["vector"]),
    ]
    return graph(
        nodes, {"w": filters(channels, bands, 3)}, [batch, bands, side or "h", side or "w"], ["vector"]
    )


def mapped(bands=2, channels=5):
    """A convolution and means of 4 x 4 pixels, over an image of any size."""
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Tanh", ["a"], ["b"]),
        helper.make_node("AveragePool", ["b"], ["map"], kernel_shape=[4, 4], strides=[4, 4]),
    ]
    return graph(nodes, {"w": filters(channels, bands, 3)}, ["n", bands, "h", "w"], ["map"])


def tokens(side=16, patch=8, bands=2, channels=4, batch="n", first=1):
    """Patches as tokens behind a class token, each of which sees the mean of all."""
    weights = {
        "w": filters(channels, bands, patch),
        "flat": np.array([0, channels, (side // patch) ** 2], np.int64),
        "zero": np.zeros((1, first, channels), np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["a"], strides=[patch, patch]),
        helper.make_node("Reshape", ["a", "flat"], ["b"]),
        helper.make_node("Transpose", ["b"], ["c"], perm=[0, 2, 1]),
        helper.make_node("ReduceMean", ["c"], ["m"], axes=[1], keepdims=1),
        helper.make_node("Add", ["c", "m"], ["d"]),
        helper.make_node("Mul", ["m", "m"], ["e"]),
        *(
            [helper.make_node("Concat", ["e"] * first + ["d"], ["tokens"], axis=1)]
            if first
            else [helper.make_node("Identity", ["d"], ["tokens"])]
        ),
    ]
    return graph(nodes, weights, [batch, bands, side, side], ["tokens"])


def scaled(field):
    mean, std = (np.asarray(SCALES[k])[:, None, None] for k in ("mean", "std"))
    return ((field - mean) / std).astype(np.float32)


def run(data, images):
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": images})[0]


@pytest.fixture
def scene(tmp_path):
    return make_scene(tmp_path / "raw", np.maximum(scene_field((70, 100), 3), 1)).item


def pixels(item):
    field = []
    for name in RED_NIR:
        with rasterio.open(item.assets[name].href) as src:
            field.append(src.read(1))
    return np.stack(field)


class TestCells(CodecConformance):
    def make(self):
        return embedder(pooled(12), RED_NIR, stride=4, sample=[scene_field((64, 64), 1)[:2]], **SCALES)


class TestTiles(CodecConformance):
    def make(self):
        return embedder(tokens(), RED_NIR, **SCALES)


class TestDense(CodecConformance):
    def make(self):
        return embedder(mapped(), RED_NIR, halo=1, **SCALES)


def test_a_vector_of_each_window_is_what_the_graph_gives(scene, tmp_path):
    codec = embedder(pooled(8), RED_NIR, **SCALES)
    (item,) = encode([scene], codec, tmp_path / "out", asset="mine")
    fields = item.assets["mine"].extra_fields
    assert (fields["latent:kind"], fields["latent:stride"], fields["latent:determinism"]) == (
        "embedding",
        [8, 8],
        "platform",
    )
    got = load(item, asset="mine", upto="latent").latent.values.reshape(6, *fields["latent:shape"][1:])
    field = pixels(scene)
    raw = scene.assets["red"]
    with rasterio.open(raw.href) as src:
        x0, y0 = src.transform.c, src.transform.f
        size = src.transform.a
    dx = round((fields["proj:transform"][2] - x0) / size)
    dy = round((y0 - fields["proj:transform"][5]) / size)
    for row, column in ((2, 3), (5, 7)):
        y, x = dy + 8 * row, dx + 8 * column
        want = run(pooled(8), scaled(field[:, y : y + 8, x : x + 8])[None])[0]
        np.testing.assert_allclose(got[:, row, column], want, atol=1e-5)


def test_from_a_scene_to_a_table_and_back_to_its_pixels(scene, tmp_path):
    """As a user goes: int8 fitted to the scene, a bundle by path, encode, verify, publish."""
    codec = embedder(mapped(), RED_NIR, halo=1, sample=scene, about={"license": "MIT"}, name="mine", **SCALES)
    save_bundle(codec, tmp_path / "mine")
    opened = open_codec(str(tmp_path / "mine"))
    assert (opened.space, opened.spec.data_type, opened.about["license"]) == (codec.space, "int8", "MIT")
    (item,) = encode([scene], str(tmp_path / "mine"), tmp_path / "out", asset="mine")
    assert all(not c.problems for c in verify(str(tmp_path / "out/catalog.json")))
    path = publish([item], tmp_path / "v.parquet", asset="mine")
    assert path is not None
    exact = embedder(mapped(), RED_NIR, halo=1, **SCALES)
    (plain,) = encode([scene], exact, tmp_path / "plain", asset="mine")
    a, b = (load(i, asset="mine", upto="latent").latent.values for i in (item, plain))
    assert np.nanstd(a - b) < 0.02 * np.nanstd(b)
    with rasterio.open(scene.assets["nir"].href, "r+") as src:
        src.write(src.read()[:, ::-1])
    (checked, *_) = verify(str(tmp_path / "plain/catalog.json"))
    assert any("are not the embedding that codec" in p for p in checked.problems)


def test_sample_items_that_lack_a_band_are_passed_over(scene):
    other = scene.clone()
    del other.assets["nir"]
    codec = embedder(pooled(8), RED_NIR, sample=[other, scene], **SCALES)
    assert codec.spec.data_type == "int8"
    with pytest.raises(
        CatalogError, match=r"no sample holds a cell of 8 x 8 .*; 1 cannot be read, such as: .* lacks band"
    ):
        embedder(pooled(8), RED_NIR, sample=other, **SCALES)


def test_pixels_without_data_make_no_vector(tmp_path):
    field = scene_field((64, 96), 2)
    field[:, :32] = 0
    item = make_scene(tmp_path / "raw", field).item
    (made,) = encode([item], embedder(pooled(8), RED_NIR, **SCALES), tmp_path / "out", asset="mine")
    latent = load(made, asset="mine", upto="latent").latent.values[0]
    empty = np.isnan(latent).all(axis=0)
    assert 0 < empty.sum() < empty.size
    assert np.isfinite(latent[:, ~empty]).all()


def test_an_item_with_another_scale_is_brought_to_the_bands_once(tmp_path):
    field = scene_field((64, 96), 2)
    bands = [Band("red", nodata=0, scale=1e-4), Band("nir", nodata=0, scale=1e-4)]
    codec = embedder(pooled(8), bands, **SCALES)
    found = []
    for name, gain in (("a", 1), ("b", 2)):
        item = make_scene(tmp_path / name, field * gain).item
        for asset in item.assets.values():
            asset.extra_fields["raster:scale"] = 1e-4 / gain
        (made,) = encode([item], codec, tmp_path / f"out-{name}", asset="mine")
        found.append(load(made, asset="mine", upto="latent").latent.values)
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)


def test_a_stage_pickles_and_runs_batches_of_one():
    codec = embedder(tokens(batch=1), RED_NIR, **SCALES)
    field = scene_field((32, 48), 4)[:2]
    want = codec.encode(field, upto="symbols")
    assert np.array_equal(pickle.loads(pickle.dumps(codec)).encode(field, upto="symbols"), want)  # noqa: S301
    np.testing.assert_allclose(
        want, embedder(tokens(), RED_NIR, **SCALES).encode(field, upto="symbols"), atol=1e-5
    )
    want = run(tokens(batch=1), scaled(field[:, :16, 16:32])[None])[0, 1:].T.reshape(4, 2, 2)
    np.testing.assert_allclose(codec.encode(field, upto="symbols")[:, :2, 2:4], want, atol=1e-5)


def test_graphs_with_the_bands_last():
    """As TensorFlow's are: the same graph between two turns of the axes."""
    nodes = [
        helper.make_node("Transpose", ["image"], ["i"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["i", "w"], ["a"], strides=[4, 4]),
        helper.make_node("Transpose", ["a"], ["map"], perm=[0, 2, 3, 1]),
    ]
    weights = {"w": filters(5, 2, 4)}
    last = embedder(graph(nodes, weights, ["n", 16, 16, 2], ["map"]), RED_NIR, **SCALES)
    plain = [helper.make_node("Conv", ["image", "w"], ["map"], strides=[4, 4])]
    first = embedder(graph(plain, weights, ["n", 2, 16, 16], ["map"]), RED_NIR, **SCALES)
    field = scene_field((32, 48), 4)[:2]
    assert last.spec.stride == first.spec.stride == (4, 4)
    np.testing.assert_allclose(
        last.encode(field, upto="symbols"), first.encode(field, upto="symbols"), atol=1e-5
    )


def test_a_machine_that_makes_other_latents_is_refused(monkeypatch):
    codec = embedder(pooled(8), RED_NIR, **SCALES)
    files = write_bundle(codec)
    real = stage_module.OnnxEmbedder._run
    for factor, fails in ((1 + 1e-6, False), (1.5, True)):
        monkeypatch.setattr(
            stage_module.OnnxEmbedder,
            "_run",
            lambda self, x, cells, f=factor: (real(self, x, cells) * f).astype("f4"),
        )
        if fails:
            with pytest.raises(
                BundleError,
                match=r"other latents of the probe block than the author's, beyond the stated tolerance of 0.001",
            ):
                read_bundle(files, refresh=True)
        else:
            read_bundle(files, refresh=True)


@pytest.mark.parametrize(
    ("model", "options", "error", "text"),
    [
        (
            lambda: b"no graph",
            {},
            BundleError,
            "this is no ONNX graph that can be opened: .*export it as one file",
        ),
        (lambda: pooled(8, bands=3), {}, CodecError, "the graph takes 3 bands, and bands= names 2"),
        (
            pooled,
            {},
            CodecError,
            "takes images of any size: say which with window=, or how far a cell looks with halo=",
        ),
        (
            lambda: pooled(8),
            {"window": 16},
            CodecError,
            "takes images of 8 pixels, and window= says 16; leave it out",
        ),
        (
            lambda: pooled(8),
            {"stride": 3},
            CodecError,
            "stride is 3 and the window 8; expected at most the window, and as much",
        ),
        (lambda: pooled(8), {"stride": 10}, CodecError, "stride is 10 and the window 8"),
        (
            lambda: pooled(8),
            {"halo": 2},
            CodecError,
            "halo is for graphs that take images of any size and give a map",
        ),
        (
            lambda: pooled(8, batch=4),
            {},
            CodecError,
            "takes batches of 4 images alone; export it for one, or with an open axis",
        ),
        (
            mapped,
            {"halo": 0},
            CodecError,
            "depends on pixels further than halo=0 beyond its cell: a window differs from the whole by",
        ),
        (
            mapped,
            {"window": 18},
            CodecError,
            r"gives 4 x 4 cells for 18 x 18 pixels, and stride= says None",
        ),
        (
            tokens,
            {"stride": 4},
            CodecError,
            "gives 2 x 2 cells for 16 x 16 pixels, and stride= says 4",
        ),
        (
            tokens,
            {"layout": "cells"},
            CodecError,
            "layout 'cells' takes one vector an image, and the graph gives 2 x 2",
        ),
        (
            tokens,
            {"layout": "dense"},
            CodecError,
            "layout 'dense' needs a graph that takes images of any size, and halo=",
        ),
        (
            tokens,
            {"layout": "rows"},
            CodecError,
            "layout is 'rows'; expected one of cells, tiles, dense",
        ),
        (
            lambda: tokens(first=3),
            {},
            CodecError,
            r"gives \(1, 7, 4\) for one image of 16 x 16 pixels, expected \(1, channel\)",
        ),
        (tokens, {"output": "x"}, CodecError, "the graph has no output 'x'; it has tokens"),
        (tokens, {"dtype": "int8"}, CodecError, "int8 needs its scales from imagery: pass sample="),
        (tokens, {"dtype": "int4"}, CodecError, "dtype is 'int4'; expected int8 or float32"),
        (tokens, {"mean": [1.0]}, CodecError, "one mean and one deviation for each band"),
        (tokens, {"std": [1.0, 0.0]}, CodecError, "means must be finite and deviations positive"),
        (tokens, {"tolerance": 2.0}, CodecError, "tolerance=2.0. cannot be laid over a scene"),
        (
            tokens,
            {"sample": [np.zeros((2, 64, 64), "u2")]},
            CatalogError,
            "no sample holds a cell of 8 x 8 pixels with data",
        ),
    ],
)
def test_graphs_and_arguments_that_are_refused(model, options, error, text):
    with pytest.raises(error, match=text):
        embedder(model(), RED_NIR, **{**SCALES, **options})


def test_graphs_that_are_no_embedders_of_images(tmp_path):
    nodes = [helper.make_node("Identity", ["image"], ["a"]), helper.make_node("Identity", ["image"], ["b"])]
    with pytest.raises(CodecError, match="has the outputs a, b; choose one with output="):
        embedder(graph(nodes, {}, ["n", 2, 8, 8], ["a", "b"]), RED_NIR)
    assert embedder(graph(nodes, {}, ["n", 2, 8, 8], ["a", "b"]), RED_NIR, output="b").spec.stride == (1, 1)
    with pytest.raises(CodecError, match=r"input 'image' is tensor\(double\) of 4 axes, expected float32"):
        embedder(graph(nodes[:1], {}, ["n", 2, 8, 8], ["a"], kind=TensorProto.DOUBLE), RED_NIR)
    with pytest.raises(CodecError, match="images of 8 x 16 pixels; expected squares"):
        embedder(graph(nodes[:1], {}, ["n", 2, 8, 16], ["a"]), RED_NIR)
    time = helper.make_tensor_value_info("time", TensorProto.FLOAT, ["n", 3])
    with pytest.raises(CodecError, match=r"takes 2 inputs \(image, time\), expected one, an image"):
        embedder(graph(nodes[:1], {}, ["n", 2, 8, 8], ["a"], more=[time]), RED_NIR)
    with pytest.raises(BundleError, match="this is no ONNX graph that can be opened"):
        embedder(graph(nodes[:1], {}, ["n", 2, 8, 8], ["a"], opset=99), RED_NIR)
    with pytest.raises(BundleError, match=r"cannot read the graph .*nothere\.onnx: No such file"):
        embedder(tmp_path / "nothere.onnx", RED_NIR)


def test_a_graph_that_reads_files_is_refused(tmp_path, monkeypatch):
    model = onnx.load_from_string(pooled(8))
    path = tmp_path / "net.onnx"
    onnx.save_model(model, str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert (tmp_path / "weights.bin").exists()
    for folder in (tmp_path, tmp_path.parent):  # beside the weights, too
        monkeypatch.chdir(folder)
        with pytest.raises(BundleError, match="export it as one file, with its weights inside"):
            embedder(path, RED_NIR)


def test_values_that_are_none_and_graphs_that_are_too_large(tmp_path):
    codec = embedder(pooled(8), [Band(n, "float32") for n in RED_NIR])
    with pytest.raises(FieldError, match="NaN or infinite values outside its mask"):
        codec.encode(np.full((2, 16, 16), np.nan, np.float32), upto="symbols")
    nodes = [helper.make_node("Sqrt", ["image"], ["a"])]
    codec = embedder(graph(nodes, {}, ["n", 2, 8, 8], ["a"]), RED_NIR, mean=[2000, 2000])
    with pytest.raises(
        CodecError, match="gives NaN or infinite values for finite pixels; check mean= and std="
    ):
        codec.encode(np.full((2, 16, 16), 1000, "u2"), upto="symbols")
    with (tmp_path / "large.onnx").open("wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(BundleError, match="3,221,225,472 bytes; at most 268,435,456 fit in a bundle"):
        embedder(tmp_path / "large.onnx", RED_NIR)


def test_a_scene_that_is_smaller_than_the_window_is_mirrored(tmp_path):
    item = make_scene(tmp_path / "raw", scene_field((13, 9), 3)).item
    (made,) = encode([item], embedder(tokens(), RED_NIR, **SCALES), tmp_path / "out", asset="mine")
    latent = load(made, asset="mine", upto="latent").latent.values
    assert np.isfinite(latent).any()
    assert all(not c.problems for c in verify(str(tmp_path / "out/catalog.json")))
