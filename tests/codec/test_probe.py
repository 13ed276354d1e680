"""The probe of a bundle: run once on a machine, and never passed over where it failed."""

from __future__ import annotations

import pytest

from stac_latent.codec import probe
from stac_latent.codec.bundle import load_bundle, save_bundle
from stac_latent.codec.shipped import dct
from stac_latent.errors import BundleError
from stac_latent.spec import Band


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    monkeypatch.setenv("STAC_LATENT_CACHE", str(tmp_path / "cache"))
    probe.passed().clear()
    return save_bundle(dct([Band("probed")], step=17.0), tmp_path / "bundle")


@pytest.fixture
def runs(monkeypatch):
    """How often a payload was decoded."""
    from stac_latent.codec.codec import Codec

    seen, honest = [], Codec.entropy_decode

    def counted(self, payload):
        seen.append(self.space)
        return honest(self, payload)

    monkeypatch.setattr(Codec, "entropy_decode", counted)
    return seen


def test_a_probe_runs_once_on_a_machine(bundle, runs, monkeypatch):
    codec = load_bundle(bundle)
    once = len(runs)
    assert once > 0
    probe.passed().clear()  # as in a new process
    assert load_bundle(bundle).space == codec.space
    assert len(runs) == once
    load_bundle(bundle, refresh=True)
    assert len(runs) == 2 * once


def test_another_version_of_a_library_runs_it_again(bundle, runs, monkeypatch):
    load_bundle(bundle)
    once = len(runs)
    probe.passed().clear()
    monkeypatch.setattr(probe, "environment", lambda: {"numpy": "another"})
    load_bundle(bundle)
    assert len(runs) == 2 * once


def test_a_failing_probe_refuses_each_time(bundle, monkeypatch):
    """Also where it passed before, and was then run again by request."""
    honest = probe._crc
    monkeypatch.setattr(probe, "_crc", lambda a: honest(a) ^ 1)
    for _ in range(2):
        with pytest.raises(
            BundleError, match=r"this machine decodes the probe block to checksums .* would be wrong"
        ):
            load_bundle(bundle)
    assert not list((bundle.parent / "cache").rglob("*.json"))
    monkeypatch.undo()


def test_a_cache_that_cannot_be_written_is_no_obstacle(bundle, monkeypatch):
    monkeypatch.setenv("STAC_LATENT_CACHE", "/dev/null/none")
    assert load_bundle(bundle).name == "dct"
