"""Every example in a docstring runs, or is skipped there by name."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import pkgutil
import warnings

import pytest

import stac_latent

NAMES = sorted(
    m.name
    for m in pkgutil.walk_packages(stac_latent.__path__, "stac_latent.")
    if not m.name.endswith("__main__")
)


if importlib.util.find_spec("torch") is None:  # an extra: its room has nothing to run without
    NAMES = [n for n in NAMES if not n.startswith("stac_latent.train.")]


@pytest.mark.parametrize("name", NAMES)
def test_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        result = doctest.testmod(
            importlib.import_module(name), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        )
    assert result.failed == 0, (
        f"{result.failed} of {result.attempted} examples of {name} failed; see the output"
    )


def test_there_are_examples():
    finder = doctest.DocTestFinder(exclude_empty=True)
    with_examples = [n for n in NAMES if any(t.examples for t in finder.find(importlib.import_module(n)))]
    assert len(with_examples) > 15
