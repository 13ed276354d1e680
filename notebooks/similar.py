# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Find places like this one
#
# Embeddings of a real Sentinel-2 sample, offline: publish them, search them by place, by chip and by area, and draw a map of labels
# from a few examples. The sample is small, so that all of this takes seconds; the same calls search millions of vectors.

# %%
import tempfile
from pathlib import Path

import geopandas
import matplotlib.pyplot as plt
import numpy as np
import odc.stac
import shapely

import stac_latent

here = next(p for p in (Path.cwd(), *Path.cwd().parents) if (p / "catalogs" / "sample").is_dir())
sample = here / "catalogs" / "sample" / "catalog.json"
work = Path(tempfile.mkdtemp())

# %% [markdown]
# ## Publish
#
# One row for each cell of 8 x 8 pixels, as int8 with a scale for each vector. Channels differ in scale by orders of magnitude, so
# they are standardised by the statistics of the space before any distance is taken.

# %%
(scene,) = stac_latent.search(sample, ids=["spyndex-s2-sample"])
table = stac_latent.publish(scene, work / "cells.parquet", asset="embedding", standardise=True, dtype="int8")
print(
    table.properties["table:row_count"],
    "vectors of",
    table.assets["embeddings"].extra_fields["latent:dimensions"],
)

# %% [markdown]
# ## A place
#
# Three places, and for each the forty cells that are most like it. The first of them is the cell itself, at distance zero.

# %%
raw = odc.stac.load([scene], bands=["B04", "B03", "B02"]).isel(time=0)
rgb = np.clip(np.stack([raw[b] for b in ("B04", "B03", "B02")], axis=-1) / 2500, 0, 1) ** 0.8
extent = [float(v) for v in (raw.x[0] - 5, raw.x[-1] + 5, raw.y[-1] - 5, raw.y[0] + 5)]
crs = raw.odc.crs.to_wkt()

rows = geopandas.read_parquet(work / "cells.parquet")
places = [rows.geometry.iloc[i].centroid.coords[0] for i in (60, 500, 900)]
found = stac_latent.nearest(table, places, k=40)
assert found.groupby("query")["distance"].first().abs().max() < 1e-9


def draw(ax, frame, colour):
    frame.to_crs(crs).plot(ax=ax, facecolor=colour, edgecolor="none", alpha=0.6)


figure, axes = plt.subplots(1, 3, figsize=(13, 4.4))
for i, (ax, colour) in enumerate(zip(axes, ("red", "yellow", "cyan"))):
    ax.imshow(rgb, extent=extent)
    draw(ax, found[found["query"] == i], colour)
    here_ = geopandas.GeoSeries([shapely.Point(places[i])], crs="OGC:CRS84").to_crs(crs)
    here_.plot(ax=ax, color="white", marker="+", markersize=120)
    ax.axis("off")
    ax.set_title(f"forty cells like the cross, cosine to {found[found['query'] == i]['distance'].max():.2f}")
figure.tight_layout()

# %% [markdown]
# ## Somewhere else
#
# Conditions on place, time and quality hold before any vector is looked at: the nearest in the western half are those of the western
# half, however many nearer ones the east has.

# %%
west, south, east, north = rows.total_bounds
half = stac_latent.nearest(
    table, places[0], k=5, bbox=(west, south, (west + east) / 2, north), min_valid=0.99
)
print(half[["rank", "distance", "id"]].to_string(index=False))
assert half.geometry.bounds["minx"].max() <= (west + east) / 2

# %% [markdown]
# ## A chip, and an area
#
# Pixels are encoded by the codec of the space before they are compared; of an area, the mean of its cells is. A chip that was cut from
# the scene finds the place that it was cut from.

# %%
cell = rows[(rows["row"] == 15) & (rows["col"] == 10)].to_crs(crs)
x0, y0, x1, y1 = cell.total_bounds
bands = odc.stac.load([scene], bands=["B02", "B03", "B04", "B08"]).isel(time=0)
cut = bands.sel(x=slice(x0, x1), y=slice(y1, y0))
chip = np.stack([cut[b].to_numpy() for b in ("B02", "B03", "B04", "B08")])
by_chip = stac_latent.nearest(table, chip, k=5)
assert chip.shape == (4, 8, 8) and by_chip["id"].iloc[0] == cell["id"].iloc[0]
by_area = stac_latent.nearest(table, found[found["query"] == 1].geometry.union_all(), k=5)
print(by_chip[["rank", "distance", "id"]].to_string(index=False))
print(by_area[["rank", "distance", "id"]].to_string(index=False))

# %% [markdown]
# ## Labels from few examples
#
# Five examples, by their cells; every cell takes the label of the nearest of them. This is a sketch and no validated map: the examples
# are named by their look alone, and nothing here measures how often they are right.

# %%
brightness = rgb.mean(axis=-1)[:296, :296].reshape(37, 8, 37, 8).mean(axis=(1, 3))
order = np.argsort(brightness.ravel())
picks = {"dark": order[[40, 160]], "middle": order[[650, 720]], "bright": order[[-20]]}
examples = []
for name, cells in picks.items():
    for cell in cells:
        y, x = divmod(int(cell), 37)
        spot = geopandas.GeoSeries(
            [shapely.Point(float(raw.x[x * 8 + 4]), float(raw.y[y * 8 + 4]))], crs=crs
        ).to_crs("OGC:CRS84")
        examples.append(((spot.iloc[0].x, spot.iloc[0].y), name))
labels = stac_latent.label(table, examples, k=1, crs=crs, resolution=80)

figure, axes = plt.subplots(1, 2, figsize=(10, 4.6))
axes[0].imshow(rgb, extent=extent)
drawn = labels["label"].where(labels["label"] > 0)
drawn.plot(ax=axes[1], cmap="viridis", add_colorbar=False)
axes[1].set_aspect("equal")
axes[1].set_title(labels["label"].attrs["flag_meanings"])
for ax in axes:
    ax.axis("off")
figure.tight_layout()

# %%
assert sorted(np.unique(labels["label"])) == [0, 1, 2, 3] or sorted(np.unique(labels["label"])) == [1, 2, 3]

# %% [markdown]
# ## By clicking
#
# The same on a page: a click finds similar places, with pictures of the scene below. It is one HTML file, and needs no network.

# %%
page = stac_latent.write_map(scene, work / "map.html", asset="latent", embeddings=work / "cells.parquet")
print(page.vectors, "vectors,", page.size, "bytes")
assert page.vectors == len(rows)
