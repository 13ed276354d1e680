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
# # Quick start: from a scene to latents and back
#
# The whole line on a real Sentinel-2 sample, offline: encode, search, load, compare, publish. Open this file with
# jupytext (`jupytext --to notebook quickstart.py`) or run it as a script. It reads `../catalogs/sample`.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import odc.stac

import stac_latent

here = next(p for p in (Path.cwd(), *Path.cwd().parents) if (p / "catalogs" / "sample").is_dir())
sample = here / "catalogs" / "sample" / "catalog.json"
work = Path(tempfile.mkdtemp())

# %% [markdown]
# ## Search
#
# Rate and measured error are properties of the Items, so that a search can ask for "good enough".

# %%
for item in stac_latent.search(sample, kind="codec", sortby="-latent:psnr"):
    p = item.properties
    print(
        f"{item.id:26} {p['latent:bits_per_pixel']:.2f} bpppb  {p['latent:psnr']:.1f} dB  max error {p['latent:max_error']:.0f}"
    )

# %% [markdown]
# ## Encode
#
# The same scene at four quantiser steps. Each is written, decoded again from the stored bytes and measured before it is catalogued.
# The guard is off: how usual the scene is at a step so coarse is not the question here.

# %%
(scene,) = stac_latent.search(sample, ids=["spyndex-s2-sample"])
steps = (40, 160, 640, 2560)
for step in steps:
    codec = stac_latent.open_codec("s2-10m-4b", step=step)
    stac_latent.encode(scene, codec, work / "catalogue", asset=f"step{step}", guard="off")
(coded,) = stac_latent.search(work / "catalogue" / "catalog.json")
fields = {step: coded.assets[f"step{step}"].extra_fields for step in steps}

# %% [markdown]
# ## Load
#
# `load` gives the pixels of a latent on any grid. Here each latent on the grid that it was encoded from, beside the raw
# scene from the stock driver.

# %%
raw = odc.stac.load([scene], bands=["B04", "B03", "B02"]).isel(time=0)
decoded = {s: stac_latent.load(coded, ["B04", "B03", "B02"], asset=f"step{s}").isel(time=0) for s in steps}


def picture(cube):
    return np.clip(np.stack([cube[b] for b in ("B04", "B03", "B02")], axis=-1) / 2500, 0, 1) ** 0.8


figure, axes = plt.subplots(1, 5, figsize=(15, 3.6))
axes[0].imshow(picture(raw))
axes[0].set_title("raw, 16 bits")
for ax, step in zip(axes[1:], steps):
    ax.imshow(picture(decoded[step]))
    ax.set_title(f"{fields[step]['latent:bits_per_pixel']:.2f} bpppb, {fields[step]['latent:psnr']:.1f} dB")
for ax in axes:
    ax.axis("off")
figure.tight_layout()

# %% [markdown]
# The fields say what was measured when the latent was written; anyone can measure again.

# %%
for step in steps:
    gap = max(float(abs(decoded[step][b].astype(int) - raw[b]).max()) for b in ("B04", "B03", "B02"))
    stated = fields[step]["latent:max_error"]
    print(f"step {step:5}: largest error of three bands {gap:.0f}, stated for all bands {stated:.0f}")
    assert gap <= stated

# %% [markdown]
# Each of these steps, four times as large as the one before, takes fewer bits and is further from the raw scene:

# %%
rates = [fields[step]["latent:bits_per_pixel"] for step in steps]
qualities = [fields[step]["latent:psnr"] for step in steps]
for step, rate, quality in zip(steps, rates, qualities):
    print(f"step {step}: {rate:.3f} bpppb, {quality:.2f} dB")
assert rates == sorted(set(rates), reverse=True)
assert qualities == sorted(set(qualities), reverse=True)

# %% [markdown]
# ## Latents as they are
#
# Embeddings are latents that are kept for their meaning. Two dates, one space, one lattice: the distance of each cell to itself
# shows what changed (a field that was darkened) and which cells at the rim of the later scene are only partly filled.

# %%
dates = stac_latent.search(sample, ids=["spyndex-s2-sample", "synthetic-later"], sortby="datetime")
cells = stac_latent.load(dates, asset="embedding", upto="latent")
print(cells.stac_latent)
change = cells.isel(time=[0]).stac_latent.distance(cells.isel(time=[1])).isel(time=0)

figure, ax = plt.subplots(figsize=(5, 4))
change.plot(ax=ax, cmap="magma")
ax.set_aspect("equal")
ax.locator_params(nbins=4)
ax.set_title("distance in deviations")
figure.tight_layout()

# %%
seen = change.values[np.isfinite(change.values)]
assert seen.max() > 0.5 and np.median(seen) < 0.05

# %% [markdown]
# ## Publish
#
# One row for each cell, along a Hilbert curve, with a STAC Item beside the file. The rows that look most like one of them:

# %%
import geopandas

table = stac_latent.publish(
    scene, work / "cells.parquet", asset="embedding", standardise=True, dtype="float32"
)
rows = geopandas.read_parquet(work / "cells.parquet")
name = next(c for c in rows.columns if len(np.atleast_1d(rows[c].iloc[0])) == 32)
vectors = np.stack(rows[name])
query = len(rows) // 3
near = np.linalg.norm(vectors - vectors[query], axis=1)

figure, ax = plt.subplots(figsize=(5, 4))
rows.assign(distance=near).plot("distance", ax=ax, cmap="viridis_r", legend=True)
rows.iloc[[query]].boundary.plot(ax=ax, color="red")
ax.set_title(f"{len(rows)} cells, distance to the red one")
figure.tight_layout()
