"""The lattice of cells, windows and margins."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stac_latent.cube.grid.tiling import lattice_grid, padded_shape, tiles, with_margin
from stac_latent.errors import GridError
from stac_latent.testing import windows

offsets = st.integers(-30_000, 900_000)
sizes = st.integers(1, 700)


@given(
    offsets,
    offsets,
    offsets,
    offsets,
    sizes,
    sizes,
    st.sampled_from([1, 2, 8, 16]),
    st.sampled_from([10.0, 20.0, 0.5, 60.0]),
)
def test_scenes_of_one_zone_share_cell_corners(x1, y1, x2, y2, h, w, stride, res):
    """Whatever whole-pixel corner two scenes start at, their cells lie on one lattice, zone-anchored."""
    a = lattice_grid("EPSG:32633", (res, 0, x1 * res, 0, -res, y1 * res), (h, w), (stride, stride))
    b = lattice_grid("EPSG:32633", (res, 0, x2 * res, 0, -res, y2 * res), (w, h), (stride, stride))
    cell = stride * res
    for grid in (a, b):
        assert grid.cell_transform[2] % cell == 0
        assert grid.cell_transform[5] % cell == 0
        assert max(grid.padding) < stride
        assert padded_shape(grid) == (grid.cells[0] * stride, grid.cells[1] * stride)
    assert (a.cell_transform[2] - b.cell_transform[2]) % cell == 0
    assert (a.cell_transform[5] - b.cell_transform[5]) % cell == 0


def test_adjacent_scenes_do_not_overlap_by_a_cell_when_they_meet_on_the_lattice():
    left = lattice_grid("EPSG:32633", (10, 0, 400_000, 0, -10, 5_200_000), (80, 80), (8, 8))
    right = lattice_grid("EPSG:32633", (10, 0, 400_800, 0, -10, 5_200_000), (80, 80), (8, 8))
    assert left.padding == right.padding == (0, 0, 0, 0)
    assert left.cell_transform[2] + left.cells[1] * 80 == right.cell_transform[2]


def test_rotated_grids_start_at_their_own_corner():
    grid = lattice_grid("EPSG:32633", (9.9, 1.4, 400_003, 1.4, -9.9, 5_200_001), (30, 31), (8, 8))
    assert grid.padding == (0, 2, 0, 1)


def test_degrees():
    grid = lattice_grid("EPSG:4326", (0.25, 0, -20.0, 0, -0.25, 60.0), (101, 97), (8, 8))
    assert (grid.cell_transform[2] / 2.0).is_integer()
    assert (grid.cell_transform[5] / 2.0).is_integer()


@pytest.mark.parametrize("transform", [(0, 0, 1, 0, -10, 1), (10, 0, 1, 0, 0, 1)])
def test_no_grid(transform):
    with pytest.raises(GridError, match=r"no grid: transform .*pixels need a size"):
        lattice_grid("EPSG:32633", transform, (10, 10), (8, 8))
    with pytest.raises(GridError, match="there must be some"):
        lattice_grid("EPSG:32633", (10, 0, 0, 0, -10, 0), (0, 10), (8, 8))


@settings(deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.tuples(st.integers(3, 100), st.integers(3, 100)))
def test_tiles_cover_once(h, w, size):
    seen = np.zeros((h, w), int)
    for (y0, y1), (x0, x1) in tiles((h, w), size):
        assert 0 < y1 - y0 <= size[0]
        assert 0 < x1 - x0 <= size[1]
        seen[y0:y1, x0:x1] += 1
    assert (seen == 1).all()


@given(st.data(), sizes, sizes, st.integers(0, 40), st.integers(0, 40))
def test_margins_stay_inside(data, h, w, my, mx):
    window = data.draw(windows((h, w)))
    (y0, y1), (x0, x1) = with_margin(window, (my, mx), (h, w))
    assert y0 == max(0, window[0][0] - my)
    assert y1 == min(h, window[0][1] + my)
    assert x0 == max(0, window[1][0] - mx)
    assert x1 == min(w, window[1][1] + mx)
