"""Latents without a store: readers and Items that publish can be tested with."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pystac
import shapely
import shapely.geometry

from stac_latent.spec import Band, Grid, Spec, Stats

SPACE = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64
MEDIA_TYPE = "application/vnd.zarr; version=3"

UTM = Grid("EPSG:32633", (10, 0, 499_980, 0, -10, 5_300_040), (240, 320), (8, 8))
LATLON = Grid("EPSG:4326", (0.01, 0, 10.0, 0, -0.01, 50.0), (40, 60), (4, 4))


def spec_of(dimensions: int = 6, space: str = SPACE, **more: Any) -> Spec:
    stride = more.pop("stride", (8, 8))
    return Spec("codec", space, dimensions, stride, (2, 2), bands=(Band("red"), Band("nir")), **more)


@dataclass
class FakeCodec:
    stats: Stats | None


@dataclass
class FakeReader:
    """Latent in memory; remembers the windows that were read."""

    spec: Spec
    grid: Grid
    latent: np.ndarray
    share: np.ndarray
    codec: Any = None
    windows: list[Any] = field(default_factory=list)

    def read_latent(self, cells: Any = None) -> np.ndarray:
        self.windows.append(cells)
        (y0, y1), (x0, x1) = cells
        out = self.latent[:, y0:y1, x0:x1].copy()
        out[:, self.read_valid_share(cells) == 0] = np.nan
        return out

    def read_valid_share(self, cells: Any = None) -> np.ndarray:
        (y0, y1), (x0, x1) = cells
        return self.share[y0:y1, x0:x1]


def reader_of(grid: Grid = UTM, dimensions: int = 6, seed: int = 0, **more: Any) -> FakeReader:
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(dimensions, *grid.cells)).astype(np.float32)
    spec = spec_of(dimensions, more.get("space", SPACE), stride=grid.stride)
    stats = Stats(tuple(np.arange(dimensions) / 4), tuple(np.arange(dimensions) / 2 + 0.5))
    return FakeReader(spec, grid, latent, np.ones(grid.cells, np.float32), FakeCodec(stats))


def item_of(name: str, reader: FakeReader, when: datetime | None = None, **more: Any) -> pystac.Item:
    """Item whose asset ``latent`` says what the reader holds."""
    when = when or datetime(2024, 5, 17, 10, 20, 31, tzinfo=UTC)
    fields = reader.spec.to_fields() | reader.grid.to_fields()
    fields |= {
        "latent:shape": [reader.spec.dimensions, *reader.grid.cells],
        "latent:dim_order": ["channel", "y", "x"],
    }
    box = shapely.box(10, 40, 20, 50)
    item = pystac.Item(
        name,
        shapely.geometry.mapping(box),
        list(box.bounds),
        when,
        more.pop("properties", {}),
        collection=more.pop("collection", "scenes"),
        href=f"https://example.com/items/{name}.json",
    )
    item.add_asset(
        "latent", pystac.Asset("./x.zarr", media_type=MEDIA_TYPE, roles=["latent"], extra_fields=fields)
    )
    item.add_asset("red", pystac.Asset("./red.tif", media_type=pystac.MediaType.COG, roles=["data"]))
    link = pystac.Link(
        "latent:decoder", f"https://example.com/codecs/{reader.spec.space[-4:]}.json", "application/geo+json"
    )
    link.extra_fields = {
        "latent:space": reader.spec.space,
        "file:checksum": "1220" + "c" * 64,
        "file:size": 321,
    }
    item.add_link(link)
    return item


def opener(**readers: FakeReader) -> Any:
    """Opens the reader by the Item's name."""
    return lambda item, _: readers[item.id]
