"""docs/lin.md is enough to write a decoder from: the one of lin_reference.py gives the same pixels."""

from __future__ import annotations

import re
from pathlib import Path

import lin_reference
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lin_support import LAW, models

from stac_latent import open_codec
from stac_latent.codec.shipped import lin
from stac_latent.spec import Band
from stac_latent.stages.lin import lifting, rotation
from stac_latent.stages.lin.payload import GAINS, STEPS
from stac_latent.stages.lin.stage import Lin
from stac_latent.testing import make_field

PAGE = (Path(__file__).parents[2] / "docs" / "lin.md").read_text(encoding="utf-8")


def as_reference(codec, payload):
    first, _, stage = codec.stages
    pixels = lin_reference.decode(
        payload, stage.basis, stage.model.tensors(), first.unit.tolist(), first.mean.tolist()
    )
    kind = np.iinfo(codec.bands[0].data_type)
    low = np.array([kind.min + (b.nodata == kind.min) for b in codec.bands]).reshape(-1, 1, 1)
    return np.clip(np.rint(np.array(pixels)), low, kind.max).astype(kind.dtype)


@settings(LAW, max_examples=20)
@given(
    cells=st.tuples(st.integers(1, 5), st.integers(1, 6)),
    bands=st.integers(1, 4),
    seed=st.integers(0, 999),
    step=st.sampled_from((0.7, 9.0, 120.0, 3000.0)),
    kind=st.sampled_from(("scene", "noise", "sparse", "constant")),
    model=models(),
    weighted=st.booleans(),
)
def test_another_decoder_gives_the_same_pixels(cells, bands, seed, step, kind, model, weighted):
    rng = np.random.default_rng(seed)
    names = [Band(f"b{i}") for i in range(bands)]
    codec = lin(names, mean=rng.uniform(0, 3000, bands).tolist(), unit=rng.uniform(0.5, 5, bands).tolist())
    basis = np.stack([np.linalg.qr(rng.normal(size=(bands, bands)))[0] for _ in range(7)])
    stage = Lin(basis.astype(np.float32), model)
    codec = codec.__class__("any", (*codec.stages[:2], stage), codec.bands, dimensions=64 * bands)
    field = make_field(names, (8 * cells[0], 8 * cells[1]), seed, kind)
    if weighted:
        stage.gains = rng.uniform(0.5, 2, bands).astype(np.float32)
    payload = stage.code(stage.prepare(_tiles(codec, field), None, stage.gains), step)
    assert np.array_equal(as_reference(codec, payload), codec.decode(payload))


def _tiles(codec, field):
    x = (codec.stages[0].forward(field) / 16).astype(np.float32)
    lifting.analyse(x, lifting.levels_of(*x.shape[1:]))
    return [x]


@pytest.mark.parametrize("name", ["s2-10m-4b", "landsat-c2l2-6b"])
def test_a_fitted_codec_and_every_level(name):
    """A narrow tile has all six levels, and planes without a sample."""
    codec = open_codec(name)
    field = make_field(codec.bands, (16, 256), 3)
    payload = codec.entropy_encode(codec.encode(field, upto="symbols"))
    assert np.array_equal(as_reference(codec, payload), codec.decode(payload))


def test_the_page_has_the_constants_of_the_code():
    norms = re.findall(r"^\| (\d) \| (\d\.\d+) \| (\d\.\d+) \|$", PAGE, re.MULTILINE)
    assert [(float(a), float(b)) for _, a, b in norms] == list(lifting.NORMS) == list(lin_reference.NORMS)
    table = dict(re.findall(r"^\| ([ABCDK]) \| (-?\d\.\d+)", PAGE, re.MULTILINE))
    code = {"A": lifting._A, "B": lifting._B, "C": lifting._C, "D": lifting._D, "K": lifting._K}
    assert {k: np.float32(float(v)) for k, v in table.items()} == code
    assert (STEPS, GAINS) == ((2.0**-40, 2.0**40), (2.0**-20, 2.0**20))
    assert rotation._ESCAPE == 24
    assert Lin.bitstream in PAGE
