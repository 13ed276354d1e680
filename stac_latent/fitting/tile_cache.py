"""Tiles of a fit on disk: each is read from its item once, passes stream from here, and a killed fit goes on from here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stac_latent.field.storage_type import to_field
from stac_latent.fitting.sampling import CELL, Tile
from stac_latent.fitting.sources import FitSource
from stac_latent.spec import Band
from stac_latent.system.files import clear_parts, replacing

__all__ = ["TileCache"]

Mask = npt.NDArray[np.bool_]
Pair = tuple[npt.NDArray[Any], Mask | None]
_LEAST_VALID = 0.5
_KEY = "plan.json"


@dataclass
class TileCache:
    """Folder of tiles.

    Parameters
    ----------
    folder
        Made if need be; what another plan left in it is cleared.
    key
        Digest of all that decides what the tiles hold.
    sources, bands
        Where tiles are read, and in which unit.
    """

    folder: Path
    key: str
    sources: Sequence[FitSource]
    bands: Sequence[Band]

    def __post_init__(self) -> None:
        path = self.folder / _KEY
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = None
        if known != self.key:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            path.write_text(json.dumps(self.key), encoding="utf-8")
        clear_parts(self.folder)

    def draw(
        self, tiles: Sequence[Tile], pixels: int, report: Callable[[int], None]
    ) -> tuple[list[Tile], int]:
        """Read tiles in order until they hold so many valid pixels.

        Tiles of which less than half is valid are passed over: what fills their holes would be fitted.

        Parameters
        ----------
        tiles
            In the order to be read.
        pixels
            Wanted; the tiles may hold fewer.
        report
            Called with the pixels so far.

        Returns
        -------
        taken, passed_over
        """
        taken, passed, total = [], 0, 0
        for tile in tiles:
            valid = self._valid_pixels(tile)
            if not valid:
                passed += 1
                continue
            taken.append(tile)
            total += valid
            report(min(total, pixels))
            if total >= pixels:
                break
        return taken, passed

    def layers(self, tiles: Sequence[Tile], keep: Sequence[int] | None = None) -> Iterator[list[Pair]]:
        """For each lattice fields ``(band, y, x)`` in the bands' stored type and masks ``(1 or band, y, x)``; None where all
        is valid.

        ``keep`` chooses bands of a single lattice.
        """  # noqa: D205 - reads as one
        for tile in tiles:
            out: list[Pair] = []
            with np.load(self._path(tile)) as data:
                pairs = [(data[f"field{k}"], data[f"mask{k}"]) for k in range(len(data.files) // 2)]
            for field, mask in pairs:
                if keep is not None and len(pairs) == 1:
                    field, mask = field[list(keep)], (mask if len(mask) == 1 else mask[list(keep)])  # noqa: PLW2901
                    mask = mask[:1] if (mask == mask[:1]).all() else mask  # noqa: PLW2901
                out.append((field, None if mask.all() else mask))
            yield out

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, tile: Tile) -> Path:
        return self.folder / f"{tile.order[:40]}.npz"

    def _valid_pixels(self, tile: Tile) -> int:
        """Pixels of a tile with data in any band, zero if it is too empty; read where that has not been done."""
        path = self._path(tile)
        if not path.exists():
            layers = self.sources[tile.source].read(tile.window)
            if layers[0][1].mean() < _LEAST_VALID:
                layers = [
                    (f[:, :CELL, :CELL], np.zeros((1, *f.shape[1:]), bool)[:, :CELL, :CELL])
                    for f, _ in layers
                ]
            arrays, at = {}, 0
            for k, (field, mask) in enumerate(layers):
                arrays[f"field{k}"] = to_field(field, self.bands[at : at + len(field)])
                arrays[f"mask{k}"] = mask
                at += len(field)
            with replacing(path, sweep=False) as part, part.open("wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]
        with np.load(path) as data:
            return int(data["mask0"].any(axis=0).sum())
