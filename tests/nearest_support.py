"""Published tables without latents behind them, and the search that everything is compared with."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import shapely

from stac_latent.store.embeddings import read_table, vectors
from stac_latent.store.geoparquet.writer import EmbeddingsWriter

SPACE = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64
START = datetime(2024, 1, 1, tzinfo=UTC)


def clustered(n: int, k: int, seed: int = 0) -> np.ndarray:
    """Vectors as models give them: clusters of unequal size, few directions that matter, a mean that is not zero."""
    rng = np.random.default_rng(seed)
    shape = 0.85 ** np.arange(k)
    centres = rng.normal(size=(12, k)) * shape * 3 + rng.normal(size=k)
    which = np.minimum(rng.zipf(1.6, n), 12) - 1
    return (centres[which] + rng.normal(size=(n, k)) * shape).astype(np.float32)


def write(
    path: Path,
    values: np.ndarray,
    *,
    dtype: str = "float32",
    space: str = SPACE,
    dates: int = 1,
    group: int = 16 << 10,
    valid: np.ndarray | None = None,
    times: list[datetime | None] | None = None,
    **how: Any,
) -> Path:
    """A table of (n, k) vectors on a square lattice of 0.01 degrees, at several dates."""
    work = path.parent / f"work-{path.stem}"
    work.mkdir(parents=True)
    n, k = values.shape
    writer = EmbeddingsWriter(work, k, dtype, row_group_bytes=group, compression_level=1)  # type: ignore[arg-type]
    each = -(-n // dates)
    for date in range(dates):
        own = values[date * each : (date + 1) * each]
        side = max(1, int(np.ceil(len(own) ** 0.5)))
        row, col = np.divmod(np.arange(len(own)), side)
        boxes = shapely.box(10 + col / 100, 50 - (row + 1) / 100, 10 + (col + 1) / 100, 50 - row / 100)
        share = (np.arange(len(own)) % 5 + 1) / 5 if valid is None else valid
        when = START + timedelta(days=date) if times is None else pa.array(times, pa.timestamp("us", "UTC"))
        if len(own):
            writer.append(
                f"item-{date}", "scenes" if date % 2 else None, when,
                row=row, col=col, valid=share, values=own, geometry=boxes,
            )  # fmt: skip
    footer = {"latent:space": space, "latent:dimensions": k, "data_type": dtype, "latent:kind": "embedding"}
    footer["latent:shape"] = [n, k]
    if writer.offset is not None:
        footer["latent:quantization_offset"] = writer.offset.tolist()
    writer.finish(path, {"latent": footer | {"publish": {"by": "cell", "source_space": space} | how}})
    return path


def brute(
    path: Path, query: np.ndarray, metric: str, mean: Any = 0.0, std: Any = 1.0
) -> tuple[list[str], np.ndarray]:
    """Ids of all rows, nearest first, and their distances: float64, no cleverness."""
    table = read_table(path)
    x = (vectors(table).astype(np.float64) - mean) / std
    q = (np.asarray(query, np.float64) - mean) / std
    with np.errstate(invalid="ignore", divide="ignore"):
        distance = {
            "l2": lambda: np.sqrt(((x - q) ** 2).sum(axis=1)),
            "dot": lambda: -(x @ q),
            "cosine": lambda: 1 - (x @ q) / np.sqrt((x**2).sum(axis=1)) / np.sqrt((q**2).sum()),
        }[metric]()
    order = [i for i in np.argsort(distance, kind="stable") if np.isfinite(distance[i])]
    ids = table["id"].to_pylist()
    return [ids[i] for i in order], distance[order]
