"""Puts the committed benchmark results into the page on benchmarks when the site is built."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace ``{{ benchmarks }}`` by one table for each file of results."""
    return (
        markdown.replace("{{ benchmarks }}", tables(RESULTS)) if "{{ benchmarks }}" in markdown else markdown
    )


def tables(folder: Path) -> str:
    """Markdown of every results file: dotted names and values."""
    parts = []
    for path in sorted(folder.glob("*.json")):
        rows = "\n".join(
            f"| {name} | {value} |" for name, value in flat(json.loads(path.read_text(encoding="utf-8")))
        )
        parts.append(f"## {path.stem}\n\n| | |\n| --- | --- |\n{rows}\n")
    return "\n".join(parts)


def flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Leaves of nested dictionaries; numbers to four digits; of lists, the number of entries."""
    if isinstance(value, list):
        value = f"{len(value)} entries"
    if isinstance(value, dict):
        return [
            leaf for key, part in value.items() for leaf in flat(part, f"{name} / {key}" if name else key)
        ]
    return [(name, f"{value:.4g}" if isinstance(value, float) else str(value))]
