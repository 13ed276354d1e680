"""Every shipped product, on files in its layout: adopted and loaded, the numbers are those of its own formula."""

from __future__ import annotations

import adopt_support as files
import numpy as np
import pyarrow as pa
import pytest
from affine import Affine

from stac_latent.catalog.adopt.products import open_product, product_names
from stac_latent.errors import CatalogError
from stac_latent.testing import ProductConformance


class TestAlphaEarth(ProductConformance):
    def product(self):
        return "alphaearth"

    def write(self, folder, seed):
        bottom_up = Affine(10, 0, 500_000, 0, 10, 4_999_000)
        path = folder / "annual" / "2024" / "33N" / f"x{seed}-0000000000-0000008192.tiff"
        return files.write_tiff(path, files.alphaearth_codes(seed), bottom_up, nodata=-128)

    def truth(self, folder, seed):
        return files.alphaearth_truth(files.alphaearth_codes(seed))[:, ::-1]


class TestTessera(ProductConformance):
    def product(self):
        return "tessera"

    def write(self, folder, seed):
        return files.write_tessera(folder, *files.tessera_codes(seed))

    def truth(self, folder, seed):
        return files.tessera_truth(*files.tessera_codes(seed))


class TestTesseraOfEachNumber(TestTessera):
    """Scales per pixel and channel."""

    def write(self, folder, seed):
        return files.write_tessera(folder, *files.tessera_codes(seed, per_channel=True))

    def truth(self, folder, seed):
        return files.tessera_truth(*files.tessera_codes(seed, per_channel=True))


class TestTesseraZarr(ProductConformance):
    def product(self):
        return "tessera-zarr"

    def write(self, folder, seed):
        return files.write_tessera_zarr(folder, *files.tessera_codes(seed))

    def truth(self, folder, seed):
        return files.tessera_truth(*files.tessera_codes(seed))


class TestTesseraTiff(ProductConformance):
    def product(self):
        return "tessera-tiff"

    def write(self, folder, seed):
        return files.write_tiff(
            folder / "tiff" / "v1" / "grid_15.05_45.15_2024.tiff", self.truth(folder, seed)
        )

    def truth(self, folder, seed):
        return np.random.default_rng(seed).normal(size=(128, 7, 9)).astype(np.float32)


class TestTerraTorch(ProductConformance):
    """Tokens of an image, without georeference; the image beside it has one, in other pixels."""

    def product(self):
        return "terratorch"

    def options(self):
        return {"version": "terramind_v1_base layer 11", "when": "2024-06-01"}

    def write(self, folder, seed):
        files.write_tiff(folder / "scene.tif", np.ones((1, 224, 224), np.uint16))
        return files.write_tiff(folder / "scene_embedding.tif", self.truth(folder, seed), None)

    def truth(self, folder, seed):
        return np.random.default_rng(seed).normal(size=(24, 14, 14)).astype(np.float32)


class Table(ProductConformance):
    def truth(self, folder, seed):
        return files.vectors_of(seed)


class TestClay(Table):
    def product(self):
        return "clay"

    def truth(self, folder, seed):
        return files.vectors_of(seed, k=768)

    def write(self, folder, seed):
        return files.write_table(
            folder / "33TWN_20220610_20220610_v001.gpq",
            files.clay_columns(self.truth(folder, seed)),
            files.geo_footer(),
        )


class TestEarthIndex(Table):
    def product(self):
        return "earth-index"

    def write(self, folder, seed):
        return files.write_table(
            folder / "33TWN.parquet",
            files.earth_index_columns(self.truth(folder, seed)),
            files.earth_index_footer(),
        )


class TestMajorTom(Table):
    def product(self):
        return "major-tom"

    def options(self):
        return {"version": "Core-S2L1C-SSL4EO"}

    def write(self, folder, seed):
        return files.write_table(
            folder / "part_00001.parquet",
            files.major_tom_columns(self.truth(folder, seed)),
            files.geo_footer(),
        )


class TestTerraTorchTable(Table):
    def product(self):
        return "terratorch-table"

    def options(self):
        return {"version": "prithvi_eo_v2_300 layer -1 mean", "when": "2024"}

    def write(self, folder, seed):
        values = self.truth(folder, seed)[:1]
        columns = {
            "embedding": pa.array(values.astype(float).tolist(), pa.list_(pa.float64())),
            "center_lat": pa.array([45.5]), "center_lon": pa.array([14.5]),
        }  # fmt: skip
        return files.write_table(folder / "chip_embedding.parquet", columns, {})

    def truth(self, folder, seed):
        return files.vectors_of(seed, n=1)


class TestPlugIn(TestTessera):
    """A product as a mapping, as a plug-in gives it: codes with an offset, channels first, in a NumPy file."""

    def product(self):
        return {
            "title": "Mine", "container": "npy", "space": {"producer": "me", "product": "mine", "version": "1"},
            "asset": {
                "latent:dim_order": ["band", "lat", "lon"], "latent:quantization": "linear", "latent:quantization_scale": [0.5],
                "latent:quantization_offset": [-3.0], "data_type": "uint8", "nodata": 255,
            },
            "grid": {"href": [["\\.npy$", ".tif"]]}, "time": {"href": "_(\\d{8})"},
        }  # fmt: skip

    def codes(self, seed):
        codes = np.random.default_rng(seed).integers(0, 255, (5, 7, 8)).astype(np.uint8)
        codes[:, 0, 0] = 255
        return codes

    def write(self, folder, seed):
        np.save(folder / "mine_20240601.npy", self.codes(seed))
        files.write_tiff(folder / "mine_20240601.tif", np.ones((1, 7, 8), np.uint8))
        return folder / "mine_20240601.npy"

    def truth(self, folder, seed):
        codes = self.codes(seed)
        return np.where(codes == 255, np.nan, codes * 0.5 - 3.0)


def test_every_shipped_product_is_well_formed():
    names = product_names()
    assert {
        "alphaearth",
        "tessera",
        "tessera-zarr",
        "clay",
        "earth-index",
        "major-tom",
        "emb",
        "terratorch",
        "any",
    } <= set(names)
    assert all(open_product(n).title == title for n, title in names.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 1}, r"unknown keys colour; expected asset \(fields of the asset"),
        ({"title": None, "space": {}}, r"a space without producer, product, version"),
        ({"container": "hdf5"}, r"container 'hdf5'; expected geotiff, npy, zarr, parquet, stac"),
        ({"asset": {"scale": 1}}, r"asset fields scale; expected latent: fields"),
        ({"time": {"href": "("}}, r"a pattern '\(' that is none"),
    ],
)
def test_bad_descriptions_say_what_was_expected(change, message):
    known = TestPlugIn().product()
    with pytest.raises(CatalogError, match=message):
        open_product({**known, **change})


def test_unknown_products_list_the_known():
    with pytest.raises(
        CatalogError,
        match=r"no product 'alphaearht' \(did you mean 'alphaearth'\?\): expected one of alphaearth, .*'any' takes a description",
    ):
        open_product("alphaearht")
    with pytest.raises(CatalogError, match=r"product 'custom' lacks title"):
        open_product({"container": "npy", "space": {}})


def test_a_plug_in_is_found_by_its_entry_point(monkeypatch):
    from importlib.metadata import EntryPoint

    from stac_latent.catalog.adopt import products

    point = EntryPoint("mine", "test_adopt_products:a_product", "stac_latent.products")
    monkeypatch.setattr(
        products, "entry_points", lambda group, name="mine": [point] if name == "mine" else []
    )
    assert open_product("mine").title == "Mine"
    assert "mine" in product_names()


def a_product():
    return TestPlugIn().product()
