"""Shared by all tests: the real sample, a synthetic scene, and a cache folder of the tests' own."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings

pytest.register_assert_rewrite("stac_latent.testing", "core_support")
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")  # how fast a machine is, and what else it does, is no property of the code

SLOW = {
    "array_chunk", "bench_peers", "bench_race", "bench_speed", "bounded", "catalogs", "docs", "doctests", "encode_many", "error_bound", "exact",
    "extension_node", "files_at_addresses", "fit", "fit_moments", "fit_real", "fitting", "golden", "guard", "index", "kills", "light_import",
    "lin_catalog", "lin_codec", "lin_damage", "lin_rate", "lin_spec", "load_oracle", "map", "map_browser", "native", "native_catalog",
    "native_trust", "nearest", "neural", "notebooks", "pgstac", "planes", "publish", "publish_footprints", "publish_tiles", "push", "rans", "recall", "references", "remote",
    "residual", "rotation", "search_api", "search_sources", "secure", "stages", "store", "subbands", "train", "written_bytes",
}  # fmt: skip
"""Files ``test_<name>.py`` that ``-m "not slow"`` leaves out: much is encoded, fitted, drawn at random or started in them."""


def pytest_configure():
    """Ctrl-C does in tests what it does in a terminal, also where the tests were started in the background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    """Mark the tests of the slow files."""
    for item in items:
        if item.path.stem.removeprefix("test_") in SLOW:
            item.add_marker("slow")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """No test finds, or leaves, a bundle in the user's cache."""
    before = os.environ.get("STAC_LATENT_CACHE")
    os.environ["STAC_LATENT_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["STAC_LATENT_CACHE"]
    else:
        os.environ["STAC_LATENT_CACHE"] = before


@pytest.fixture(scope="session")
def sample(tmp_path_factory):
    """The real Sentinel-2 sample as an Item; not to be changed."""
    pytest.importorskip("spyndex", reason="the sample comes from the spyndex wheel")
    from stac_latent.catalog.sample import sample_item

    return sample_item(tmp_path_factory.mktemp("sample"))


@pytest.fixture(scope="session")
def utm_scene(tmp_path_factory):
    """A synthetic scene without symmetry: two uint16 bands, a nodata corner and hole, an origin off the lattice."""
    from core_support import make_scene

    return make_scene(tmp_path_factory.mktemp("scene"))


@pytest.fixture
def fresh_process(monkeypatch):
    """No codec opened before is known, and every probe runs again, as in a new process."""
    from stac_latent.codec import probe
    from stac_latent.system.session import own_session

    monkeypatch.setattr(probe, "_on_record", lambda _key: False)
    with own_session():
        yield


@pytest.fixture
def short_pauses():
    """Requests are made again after a hundredth of a second; pauses that a server asks for stay. What a test sets is undone, too."""
    from stac_latent.net.retry import Retries
    from stac_latent.system.session import session

    policies = vars(session().of(Retries))
    before = dict(policies)
    policies.update({name: replace(policy, first_pause=0.01) for name, policy in before.items()})
    yield
    policies.update(before)


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Run a command in an empty folder; returns exit code, stdout and stderr."""
    from stac_latent.cli import main

    monkeypatch.chdir(tmp_path)

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["stac-latent", *map(str, args)])
        code = 0
        try:
            main()
        except SystemExit as exc:
            code = exc.code or 0
        found = capsys.readouterr()
        return code, found.out, found.err

    return call
