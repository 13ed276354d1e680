"""Files in the layouts of published embeddings, generated, and their numbers by each product's own formula."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
import shapely
import zarr
from affine import Affine

SHARED = Path(__file__).parents[2] / "shared" / "data" / "stac_embeddings"
SCHEMAS = Path(__file__).parents[2] / "shared" / "schemas"
UTM = "EPSG:32633"
NORTH = Affine(10, 0, 500_000, 0, -10, 5_000_000)


def shared(*parts):
    """A real sample, or a skip that says why."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"real samples of embeddings are not at hand ({path.name})")
    return path


def write_tiff(path, codes, transform=NORTH, crs=UTM, nodata=None):
    """Bands of a GeoTIFF; without a transform, it has no georeference."""
    path.parent.mkdir(parents=True, exist_ok=True)
    place = {} if transform is None else {"transform": transform, "crs": crs}
    size = {"count": len(codes), "height": codes.shape[1], "width": codes.shape[2]}
    with rasterio.open(
        path, "w", driver="GTiff", dtype=codes.dtype.name, nodata=nodata, **size, **place
    ) as dst:
        dst.write(codes)
    return path


# -- AlphaEarth: int8, power 2, -128, first row in the south


def alphaearth_codes(seed, shape=(64, 11, 13)):
    """Codes by the inverse of the published mapping, with masked pixels; rows run north."""
    x = np.random.default_rng(seed).normal(size=shape)
    x /= np.linalg.norm(x, axis=0)
    codes = np.clip(np.rint(np.sqrt(np.abs(x)) * 127.5), 0, 127) * np.sign(x)
    codes[:, 2:4, 5:8] = -128
    return codes.astype(np.int8)


def alphaearth_truth(codes):
    v = codes.astype(np.float64)
    return np.where(codes == -128, np.nan, (v / 127.5) ** 2 * np.sign(v))


# -- Tessera: int8 and float32 scales, NaN where there is no data


def tessera_codes(seed, shape=(9, 12, 128), per_channel=False):
    """Codes (y, x, channel) and scales (y, x), or of each number."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 3, shape).astype(np.float32)
    scale = np.abs(x).max(axis=2) / np.float32(127)
    if per_channel:
        scale = np.repeat(scale[..., None], shape[2], axis=2) * rng.uniform(1, 2, shape[2]).astype(np.float32)
    by = scale if per_channel else scale[..., None]
    codes = np.rint(x / by).astype(np.int8)
    scale[:2, 3:5] = np.nan
    codes[:2, 3:5] = 0
    scale[5, 5], codes[5, 5] = 0, 0
    return codes, scale


def tessera_truth(codes, scale):
    by = scale if scale.ndim == 3 else scale[..., None]
    return (codes.astype(np.float32) * by).transpose(2, 0, 1)


def write_tessera(folder, codes, scale, year=2024, name="grid_15.05_45.15"):
    """Codes, scales and landmask, in the folders of the producer's own tool."""
    tile = folder / "global_0.1_degree_representation" / str(year) / name / f"{name}.npy"
    tile.parent.mkdir(parents=True, exist_ok=True)
    np.save(tile, codes)
    np.save(tile.with_name(f"{name}_scales.npy"), scale)
    (folder / "tessera_metadata.json").write_text('{"dataset_version": "v1", "dataset_variant": "vultr"}')
    write_tiff(
        folder / "global_0.1_degree_tiff_all" / f"{name}.tiff", np.ones((1, *codes.shape[:2]), np.uint8)
    )
    return tile


def write_tessera_zarr(folder, codes, scale, year=2024, zone=33):
    """A store of one year with one zone, as the convention has it."""
    path = folder / f"{year}.zarr"
    root = zarr.open_group(
        path, mode="w", zarr_format=3, attributes={"tessera:dataset_version": "v1", "tessera:year": year}
    )
    attributes = {
        "tessera:dataset_version": "v1", "tessera:year": year, "tessera:utm_zone": zone, "tessera:n_bands": codes.shape[2],
        "tessera:n_tiles": 1, "tessera:model_version": "1.0", "proj:code": f"EPSG:{32600 + zone}",
        "spatial:dimensions": ["northing", "easting"], "spatial:transform": list(NORTH)[:6], "spatial:shape": list(codes.shape[:2]),
    }  # fmt: skip
    group = root.create_group(f"utm{zone:02d}", attributes=attributes)
    for name, data, dims, fill in (
        ("embeddings", codes, ["northing", "easting", "band"], 0), ("scales", scale, ["northing", "easting"], np.nan)
    ):  # fmt: skip
        chunk, shard = (4, 4, *data.shape[2:]), (8, 8, *data.shape[2:])
        array = group.create_array(
            name, shape=data.shape, dtype=data.dtype, chunks=chunk, shards=shard, fill_value=fill, dimension_names=dims
        )  # fmt: skip
        array[:] = data
    return path


# -- tables


def geo_footer(crs=None):
    column = {"encoding": "WKB", "geometry_types": ["Polygon"]}
    if crs is not None:
        column["crs"] = crs
    return {"geo": {"version": "1.0.0", "primary_column": "geometry", "columns": {"geometry": column}}}


def boxes(n, step=0.02):
    """Footprints in degrees, none like another."""
    x, y = 14 + step * np.arange(n), 45 + step * (np.arange(n) * 7 % 5)
    return shapely.box(x, y, x + step, y + step)


def write_table(path, columns, footer, row_group_size=3):
    table = pa.table(columns).replace_schema_metadata({k: json.dumps(v) for k, v in footer.items()})
    pq.write_table(table, path, row_group_size=row_group_size)
    return path


def vectors_of(seed, n=10, k=16, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=(n, k)).astype(dtype)


def clay_columns(values):
    n = len(values)
    return {
        "index": pa.array(range(n)),
        "source_url": pa.array([f"s3://clay-tiles-02/{i}.tif" for i in range(n)]),
        "date": pa.array(["2022-06-10"] * n).cast(pa.date32()),
        "embeddings": pa.array(values.tolist(), pa.list_(pa.float32())),
        "geometry": pa.array(shapely.to_wkb(boxes(n))),
    }


def earth_index_footer():
    model = {
        "id": "dinov2_vits14_softcon",
        "version": "2.0.0",
        "family": "DinoV2",
        "name": "SoftCon",
        "source": "https://example.org",
    }
    emb = {
        "version": "0.0.1", "model": model, "license": "CC-BY-4.0", "datetime": "2023-07-02T00:00:00Z",
        "start_datetime": "2023-01-01T00:00:00Z", "end_datetime": "2024-01-01T00:00:00Z", "embedding": {"dim": 16},
    }  # fmt: skip
    return {**geo_footer(), "emb": emb}


def earth_index_columns(values):
    return {
        "id": pa.array([f"tile-{i}" for i in range(len(values))]),
        "embedding": pa.array(values.tolist(), pa.list_(pa.float32())),
        "geometry": pa.array(shapely.to_wkb(boxes(len(values)))),
    }


def major_tom_columns(values):
    n = len(values)
    shapes = boxes(n)
    centres = shapely.centroid(shapes)
    return {
        "unique_id": pa.array([f"{i:064x}" for i in range(n)]),
        "embedding": pa.array(values.tolist(), pa.list_(pa.float32())),
        "timestamp": pa.array(["20200330T100031"] * n),
        "product_id": pa.array(["S2A_MSIL1C"] * n),
        "grid_cell": pa.array([f"508U_{i}R" for i in range(n)]),
        "grid_row_u": pa.array([508] * n, pa.int16()),
        "grid_col_r": pa.array(range(n), pa.int16()),
        "geometry": pa.array(shapely.to_wkb(shapes)),
        "centre_lat": pa.array(shapely.get_y(centres), pa.float32()),
        "centre_lon": pa.array(shapely.get_x(centres), pa.float32()),
        "utm_footprint": pa.array(["POLYGON EMPTY"] * n),
        "utm_crs": pa.array(["EPSG:32633"] * n),
        "pixel_bbox": pa.array([[0, 0, 224, 224]] * n, pa.list_(pa.int64())),
    }
