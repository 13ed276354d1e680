"""Outlines of land for the page of ``stac-latent map``, from Natural Earth 1:110m (public domain) as pyogrio carries it.

    python scripts/land.py

Writes ``stac_latent/page/static/land.json``: rings as differences of longitude and latitude in hundredths of a degree.
"""

from __future__ import annotations

import json
from pathlib import Path

import geopandas
import numpy as np
import pyogrio
import shapely

OUT = Path(__file__).parents[1] / "stac_latent" / "page" / "static" / "land.json"


def main() -> None:
    """Dissolve countries, drop what is tiny, and write all rings, lakes among them."""
    source = Path(pyogrio.__file__).parent / "tests" / "fixtures" / "naturalearth_lowres"
    land = shapely.union_all(geopandas.read_file(source).geometry.make_valid().to_numpy(), grid_size=0.01)
    rings = []
    for polygon in shapely.get_parts(shapely.simplify(land, 0.1)):
        for ring in (polygon.exterior, *polygon.interiors):
            points = np.rint(shapely.get_coordinates(ring)[:-1] * 100).astype(int)
            if len(points) > 2 and shapely.Polygon(points).area > 2000:
                rings.append(np.diff(points, axis=0, prepend=[[0, 0]]).ravel().tolist())
    OUT.write_text(json.dumps(rings, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"{OUT}: {len(rings)} rings, {sum(map(len, rings)) // 2} points, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
