"""Where subbands lie: every sample in one group, cells and back, parents and relatives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lin_support import LAW, same_bits

from stac_latent.stages.context.model import SETS, orientation_of
from stac_latent.stages.lin.lifting import NORMS, analyse, levels_of
from stac_latent.stages.lin.pyramid import cells_of_tile
from stac_latent.stages.lin.subbands import layout_of, pack_cells, unpack_cells

native = st.tuples(
    st.integers(1, 70), st.integers(1, 70), st.lists(st.integers(1, 3), min_size=1, max_size=3)
)


def arrays_of(h, w, bands):
    """Shapes of arrays whose pixels are 1, 2, 4 ... times as large."""
    return tuple((n, -(-h // 2**d), -(-w // 2**d)) for d, n in enumerate(bands))


@LAW
@given(tile=native, extra=st.integers(0, 3))
def test_every_sample_is_in_one_group(tile, extra):
    h, w, bands = tile
    shapes = arrays_of(h, w, bands)
    layout = layout_of(shapes, len(bands) - 1 + extra)
    seen = [np.zeros(s, int) for s in shapes]
    for group in layout.groups:
        assert len(group.regions) == len(group.shapes) == len(group.norms) == (3 if group.level else 1)
        firsts = np.cumsum([0, *bands])
        assert group.members == tuple(m for a in group.arrays for m in range(firsts[a], firsts[a + 1]))
        for o, shape in enumerate(group.shapes):
            for a, (ys, xs) in zip(group.arrays, group.regions[o], strict=True):
                assert seen[a][0, ys, xs].shape == shape, "bands of one group differ in size"
                seen[a][:, ys, xs] += 1
            samples = group.samples([np.zeros(s, np.float32) for s in shapes], o)
            assert samples.shape == (len(group.members), *shape)
    assert all((s == 1).all() for s in seen)


@LAW
@given(tile=native, extra=st.integers(0, 3), data=st.data())
def test_programs(tile, extra, data):
    h, w, bands = tile
    layout = layout_of(arrays_of(h, w, bands), len(bands) - 1 + extra)
    active = [[data.draw(st.integers(0, len(g.members))) for _ in g.shapes] for g in layout.groups]
    table, size = layout.program(active)
    assert len(table) == sum(map(sum, active))
    at = 0
    for k, (offset, rows, columns, parent, *relatives, weights) in enumerate(table.tolist()):
        assert offset == at
        at += (rows + 2) * (columns + 2)
        assert parent < k
        assert 0 <= weights < SETS
        if parent >= 0:  # a sample's parent is there, or the margin that stands for it
            assert -(-rows // 2) <= table[parent, 1] + 1
            assert -(-columns // 2) <= table[parent, 2] + 1
            assert orientation_of(table[parent, 7]) == orientation_of(weights)
        for r in relatives:
            assert r < k
            assert r < 0 or (table[r, 1], table[r, 2]) == (rows, columns)
    assert at <= size


def test_details_count_by_the_norm_of_their_level():
    layout = layout_of(((2, 64, 64),), 4)
    assert [g.level for g in layout.groups] == [0, 4, 3, 2, 1]
    assert [g.shapes for g in layout.groups[:2]] == [((4, 4),), ((4, 4),) * 3]
    for group in layout.groups[1:]:
        mixed, diagonal = NORMS[group.level - 1]
        assert group.norms == (mixed, mixed, diagonal)


def test_coarser_bands_begin_at_their_own_level():
    layout = layout_of(((2, 64, 48), (1, 32, 24), (3, 16, 12)), 3)
    assert [g.members for g in layout.groups] == [(0, 1, 2, 3, 4, 5), (0, 1, 2, 3, 4, 5), (0, 1, 2), (0, 1)]
    assert [g.shapes[0] for g in layout.groups] == [(8, 6), (8, 6), (16, 12), (32, 24)]
    table, _ = layout.program([[6], [6] * 3, [3] * 3, [2] * 3])
    assert table[-1, 3] >= 0


@LAW
@given(
    bands=st.integers(1, 3),
    cells=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    levels=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_cells_and_back(bands, cells, levels, seed):
    side = 2**levels
    x = np.random.default_rng(seed).normal(0, 1, (bands, cells[0] * side, cells[1] * side)).astype(np.float32)
    packed = pack_cells(x, levels)
    assert packed.shape == (bands * 4**levels, *cells)
    assert same_bits(unpack_cells(packed, levels), x)
    assert same_bits(pack_cells(unpack_cells(packed, levels), levels), packed)


def test_a_cell_holds_what_lies_under_it():
    x = np.zeros((1, 64, 64), np.float32)
    x[:, 16:24, 40:48] = 1000  # the cell (2, 5)
    analyse(x, 3)
    energy = np.square(pack_cells(x, 3)).sum(axis=0)
    assert energy.argmax() == 2 * 8 + 5
    assert energy[1:4, 4:7].sum() > 0.99 * energy.sum()


def test_no_tile_is_a_thin_remainder():
    for cells in range(1, 3000):
        side, other = cells_of_tile((cells, 5))
        assert other == 5
        if cells <= 48:
            assert side == cells
            continue
        last = (cells - 1) % side + 1
        assert 28 <= side <= 40
        assert last > 0.6 * side
        assert cells_of_tile((last, side)) == (last, side), "a tile alone is one tile"


@pytest.mark.parametrize("size", [(256, 256), (200, 104), (8, 256)])
def test_tiles_of_the_chain_have_a_layout(size):
    levels = levels_of(*size)
    layout = layout_of(((1, *size),), levels)
    assert sum(h * w for g in layout.groups for h, w in g.shapes) == size[0] * size[1]
