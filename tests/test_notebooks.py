"""Notebooks run from top to bottom in a kernel of their own, draw what they say, and end in time."""

from __future__ import annotations

import re
from pathlib import Path

import jupytext
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client", "ignore::DeprecationWarning:zmq")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_runs(path, tmp_path, monkeypatch):
    from nbclient import NotebookClient

    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    notebook = jupytext.read(path)
    cells = [c for c in notebook.cells if c.cell_type == "code"]
    NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    ).execute()
    outputs = [output for cell in cells for output in cell.outputs]
    assert [o for o in outputs if o.output_type == "error"] == []
    assert [o["text"] for o in outputs if o.get("name") == "stderr"] == []
    pictures = [o for o in outputs if "image/png" in o.get("data", {})]
    assert len(pictures) == sum("plt.subplots" in c.source for c in cells)
    if path.stem == "quickstart":
        said = "".join(o["text"] for o in outputs if o.get("name") == "stdout")
        rows = re.findall(r"^step (\d+): ([\d.]+) bpppb, ([\d.]+) dB$", said, re.MULTILINE)
        steps, rates, qualities = (np.array(v, float) for v in zip(*rows, strict=True))
        assert steps.tolist() == [40, 160, 640, 2560]
        assert (np.diff(rates) < -0.05).all()  # four pictures, not one
        assert (np.diff(qualities) < -2).all()


def test_there_are_notebooks():
    assert [p.stem for p in NOTEBOOKS] == ["quickstart", "similar"]
    for path in NOTEBOOKS:
        first = jupytext.read(path).cells[0]
        assert first.cell_type == "markdown"
        assert first.source.startswith("# ")
