"""Rotations in a payload: angles and back, orthonormal whatever they are, one table on every machine."""

from __future__ import annotations

from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lin_support import LAW, needs_numba, same_bits

from stac_latent.errors import CorruptDataError
from stac_latent.stages.context.model import COUNT, default_counts
from stac_latent.stages.lin import rotation
from stac_latent.stages.lin.basis import choose_basis, get_bits, put_bits, read_basis, side_size
from stac_latent.stages.lin.rotation import (
    PRECISIONS,
    angles_of,
    read_rotation,
    rice_bits,
    rotate,
    write_rotation,
)
from stac_latent.stages.lin.subbands import Group

sizes = st.integers(1, 9)


def basis_of(n, seed):
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))
    return q * np.sign(np.diag(r))


def count(n, k):
    return k * n - k * (k + 1) // 2


def decimal_cos(x):
    term = total = Decimal(1)
    for i in range(2, 60, 2):
        term *= -x * x / (i * (i - 1))
        total += term
    return total


def test_every_machine_builds_the_same_table():
    """No cosine is so near to a half that the last bits of a library's cos could decide how it is rounded."""
    with localcontext() as context:
        context.prec = 50
        pi = Decimal("3.14159265358979323846264338327950288419716939937510")
        scaled = [decimal_cos(pi / 2 * i / 2**11) * 2**20 for i in range(2**11 + 1)]
        exact = [int(v.to_integral_value()) for v in scaled]
        margin = min(abs(abs(v - n) - Decimal("0.5")) for v, n in zip(scaled, exact, strict=True))
    assert margin > Decimal("1e-6")
    assert (np.rint(rotation._COS * 2**20).astype(int) == exact).all()
    assert (np.rint(rotation._COS * 2**20) == rotation._COS * 2**20).all()


def test_no_default_count_hangs_on_the_last_bit():
    """The same of the tables of unfitted chains, which are part of the digest of their space."""
    middle = np.array([0.01] + [2 ** ((b - 12.5) / 2) for b in range(1, 24)])[:, None]
    ratio = middle / (1 + middle)
    p = 300 * COUNT * (1 - ratio) * ratio ** np.arange(16)
    p[:, 15] = 300 * COUNT * ratio[:, 0] ** 15
    assert np.abs(np.abs(p - np.rint(p)) - 0.5).min() > 1e-6
    assert (default_counts() == np.maximum(1, np.rint(p))).all()


@LAW
@given(n=sizes, seed=st.integers(0, 999), precision=st.sampled_from(PRECISIONS), data=st.data())
def test_angles_rebuild_the_basis(n, seed, precision, data):
    k = data.draw(st.integers(0, n))
    reference, target = basis_of(n, seed), basis_of(n, seed + 1)
    angles, made = angles_of(reference, target, k, precision)
    assert np.abs(angles).max(initial=0) <= 2**precision
    again = reference.copy()
    rotate(again, angles, k, precision)
    assert same_bits(again, made)
    assert np.abs(made @ made.T - np.eye(n)).max() < 1e-4
    along = np.abs(np.einsum("ij,ij->i", made[:k], target[:k]))
    assert (along > np.cos(n * np.pi / 2**precision) - 1e-4).all() or precision < 7


@LAW
@given(n=sizes, seed=st.integers(0, 999), precision=st.sampled_from(PRECISIONS))
def test_any_angles_are_orthonormal(n, seed, precision):
    angles = np.random.default_rng(seed).integers(-(2**precision), 2**precision, count(n, n), endpoint=True)
    made = basis_of(n, seed)
    rotate(made, angles, n, precision)
    assert np.abs(made @ made.T - np.eye(n)).max() < 1e-4


def test_fine_angles_are_exact_within_their_steps():
    reference, target = np.eye(12), basis_of(12, 5)
    errors = []
    for precision in PRECISIONS:
        _, made = angles_of(reference, target, 12, precision)
        signs = np.sign(np.einsum("ij,ij->i", made, target))
        errors.append(np.abs(made * signs[:, None] - target).max())
    assert errors[-1] < 0.01
    assert errors[0] > 8 * errors[-1]


@LAW
@given(
    n=sizes,
    spread=st.sampled_from((0, 1, 9, 300, 2048)),
    seed=st.integers(0, 999),
    at=st.integers(0, 9),
    data=st.data(),
)
def test_written_angles_are_read(n, spread, seed, at, data):
    k = data.draw(st.integers(0, n))
    rng = np.random.default_rng(seed)
    angles = rng.integers(-spread, spread, count(n, k), endpoint=True)
    angles[rng.random(angles.size) < 0.1] = 2048  # what does not fit into a short code
    bits = np.zeros(at + side_size(n), np.uint8)
    end = write_rotation(bits, at, angles, n, k)
    assert end == at + rice_bits(angles, n, k)
    out = np.zeros_like(angles)
    assert read_rotation(bits[:end], at, n, k, 2048, out) == end
    assert (out == angles).all()
    if k and n > 1:
        cut = data.draw(st.integers(0, end - 1))
        assert read_rotation(bits[:cut], at, n, k, 2048, out) == -1
    if angles.size and np.abs(angles).max():
        assert read_rotation(bits[:end], at, n, k, int(np.abs(angles).max()) - 1, out) == -1


@needs_numba
@LAW
@given(n=sizes, seed=st.integers(0, 999), precision=st.sampled_from(PRECISIONS), data=st.data())
def test_both_forms_agree(n, seed, precision, data):
    k = data.draw(st.integers(0, n))
    with pytest.MonkeyPatch.context() as patch:
        compiled = angles_of(basis_of(n, seed), basis_of(n, seed + 1), k, precision)
        bits = np.zeros(side_size(n), np.uint8)
        end = write_rotation(bits, 0, compiled[0], n, k)
        for name, thing in vars(rotation).copy().items():
            if hasattr(thing, "py_func"):
                patch.setattr(rotation, name, thing.py_func)
        patch.setattr(rotation, "COMPILED", False, raising=False)
        slow = rotation.angles_of(basis_of(n, seed), basis_of(n, seed + 1), k, precision)
        assert (slow[0] == compiled[0]).all()
        assert same_bits(slow[1], compiled[1])
        again = np.zeros_like(bits)
        assert rotation.write_rotation(again, 0, slow[0], n, k) == end
        assert (again == bits).all()
        out = np.zeros_like(slow[0])
        assert rotation.read_rotation(bits[:end], 0, n, k, 2**11, out) == end
        assert (out == slow[0]).all()


# -- the basis of a group ----------------------------------------------------------------------------------------------


def group_of(m, pixels=4096):
    side = int(pixels**0.5)
    return Group(0, tuple(range(m)), (0,), (), ((side, side),), (1.0,))


def covariance(m, seed, ratio=100.0):
    b = basis_of(m, seed)
    return (b.T * ratio ** np.linspace(2, 0, m)) @ b


@LAW
@given(m=sizes, seed=st.integers(0, 99), step=st.sampled_from((0.5, 8.0, 1e6)), with_last=st.booleans())
def test_the_chosen_basis_is_read(m, seed, step, with_last):
    known = np.stack([basis_of(m + 2, seed + i) for i in range(7)]).astype(np.float32)
    known[0, :m, :m] = basis_of(m, seed)
    last = basis_of(m, seed + 50) if with_last else None
    cov = covariance(m, seed + 51)
    side = np.zeros(side_size(m), np.uint8)
    basis, end = choose_basis(known, group_of(m), cov, step, last, side, 0)
    again, at = read_basis(known, group_of(m), last, side[:end], 0)
    assert at == end
    assert same_bits(np.asarray(again), np.asarray(basis))
    assert np.abs(basis @ basis.T - np.eye(m)).max() < 1e-4


@pytest.mark.parametrize("m", [2, 12])
def test_a_basis_is_sent_where_it_pays(m):
    known = np.tile(np.eye(m, dtype=np.float32), (7, 1, 1))
    cov, side = covariance(m, 3), np.zeros(side_size(m), np.uint8)
    own, sent = choose_basis(known, group_of(m), cov, 4.0, None, side, 0)
    off = own @ cov @ own.T
    assert sent > 2
    assert np.abs(off - np.diag(np.diag(off))).max() < 0.05 * cov.max()
    _, end = choose_basis(known, group_of(m), cov, 4.0, own, side, 0)
    assert end == 2, "the basis of the group before costs two bits"
    _, end = choose_basis(known, group_of(m), cov, 1e6, None, side, 0)
    assert end == 2, "nothing to gain at a coarse step"
    _, end = choose_basis(known, group_of(m, pixels=4), cov, 4.0, None, side, 0)
    assert end == 2 or m == 2, "a few samples do not pay for it"


def test_what_is_no_basis_is_refused():
    known = np.tile(np.eye(3, dtype=np.float32), (7, 1, 1))
    group = group_of(3)

    def read(*parts, last=None):
        side, at = np.zeros(64, np.uint8), 0
        for value, width in parts:
            at = put_bits(side, at, value, width)
        return read_basis(known, group, last, side[:at], 0)

    with pytest.raises(CorruptDataError, match="basis mode 3 cannot be here"):
        read((3, 2))
    with pytest.raises(CorruptDataError, match="basis mode 1 cannot be here"):
        read((1, 2))
    with pytest.raises(CorruptDataError, match="cannot be here"):
        read((2, 2), (1, 1), (0, 3), (1, 2))  # relative to a basis before, which there is not
    with pytest.raises(CorruptDataError, match="end too soon"):
        read((2, 2), (0, 1), (0, 3), (3, 2))
    with pytest.raises(CorruptDataError, match="ends too soon"):
        read((2, 2), (0, 1))
    assert read((2, 2), (0, 1), (0, 3), (0, 2))[1] == 8
    assert get_bits(np.array([1, 0, 1], np.uint8), 0, 3) == (5, 3)
