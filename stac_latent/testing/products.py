"""Conformance of a product: files in its layout, adopted, load as its own formula says."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stac_latent.catalog.adopt.adopt import adopt
from stac_latent.catalog.adopt.load_table import load_table
from stac_latent.catalog.adopt.products import Product, open_product
from stac_latent.cube.read.load import load
from stac_latent.validation import validate

__all__ = ["ProductConformance"]


class ProductConformance(ABC):
    """Laws of a product; inherit, name the class ``Test...`` and define :meth:`product`, :meth:`write` and :meth:`truth`.

    ::

        class TestMine(ProductConformance):
            def product(self):
                return "my-product"

            def write(self, folder, seed):
                ...  # write a small file in the product's layout
                return path

            def truth(self, folder, seed):
                return numbers  # (channel, y, x), first row in the north; (row, channel) of a table
    """

    @abstractmethod
    def product(self) -> str | Mapping[str, Any]:
        """Name of the product, or its description."""

    @abstractmethod
    def write(self, folder: Path, seed: int) -> Path:
        """Write a file, and those that belong to it, in the product's layout; returns what is given to ``adopt``."""

    @abstractmethod
    def truth(self, folder: Path, seed: int) -> npt.NDArray[np.floating[Any]]:
        """Numbers of that file by the product's own formula, NaN where there is no data."""

    def options(self) -> Mapping[str, Any]:
        """Arguments of ``adopt`` besides, such as ``when`` and ``version``."""
        return {}

    tolerance = 1e-6
    """Of the numbers, relative to 1 and to their size: formulas in float64 and in float32 differ."""

    def test_description(self) -> None:
        """The product is well formed, and says what its vectors are."""
        known = open_product(self.product())
        assert isinstance(known, Product)
        assert known.title
        assert {"producer", "product", "version"} <= set(known.space)

    def test_numbers(self, tmp_path: Path) -> None:
        """Adopted and loaded, the numbers are those of the formula; nodata is NaN, and nothing else is."""
        for seed in range(3):
            folder = tmp_path / str(seed)
            folder.mkdir()
            file = self.write(folder, seed)
            truth = self.truth(folder, seed)
            items = adopt(self.product(), file, folder / "catalog", **self.options())
            if "proj:shape" in items[0].assets["embeddings"].extra_fields:
                found = load(items, upto="latent")["latent"].values[0]
                self._same(found, truth)
            else:
                table = load_table(items, invalid="keep")
                self._same(np.stack(list(table["vector"])), truth)

    def test_windows(self, tmp_path: Path) -> None:
        """Chunks are parts of the whole, bit for bit."""
        items = adopt(self.product(), self.write(tmp_path, 0), tmp_path / "catalog", **self.options())
        if "proj:shape" not in items[0].assets["embeddings"].extra_fields:
            return
        whole = load(items, upto="latent")["latent"].values
        lazy = load(items, upto="latent", chunks={"y": 3, "x": 5})["latent"]
        assert lazy.chunks is not None
        assert np.array_equal(lazy.values, whole, equal_nan=True)

    def test_nothing_is_copied(self, tmp_path: Path) -> None:
        """The Item is valid and points to the file where it is; the catalogue holds JSON alone."""
        file = self.write(tmp_path, 0)
        before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
        dest = tmp_path / "catalog"
        for item in adopt(self.product(), file, dest, **self.options()):
            problems = [p for p in validate(item) if p.keyword != "unavailable"]
            assert problems == []
            assert str(Path(item.assets["embeddings"].href)).startswith(str(file.parent))
        assert {p.suffix for p in dest.rglob("*") if p.is_file()} == {".json"}
        assert before == {p: p.read_bytes() for p in before}

    def test_space(self, tmp_path: Path) -> None:
        """Two files of the product share a space; another version of its model is another."""
        spaces: list[set[str]] = []
        for seed, more in ((0, {}), (1, {}), (0, {"version": "another"})):
            folder = tmp_path / str(len(spaces))
            folder.mkdir()
            made = adopt(
                self.product(), self.write(folder, seed), folder / "catalog", **{**self.options(), **more}
            )
            spaces.append({s for item in made for s in item.properties["latent:spaces"]})
        assert len(spaces[0]) == 1
        assert spaces[0] == spaces[1]
        assert spaces[2] != spaces[0]

    def _same(self, found: npt.NDArray[Any], truth: npt.NDArray[Any]) -> None:
        assert found.dtype == np.float32
        assert found.shape == truth.shape
        assert np.array_equal(np.isnan(found), np.isnan(truth))
        np.testing.assert_allclose(found, truth, rtol=self.tolerance, atol=self.tolerance)
