"""What is to be done about one Item of an ``encode``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pystac

from stac_latent.catalog.encode.options import EncodeOptions
from stac_latent.catalog.encode.thumbnail import can_be_drawn, has_other
from stac_latent.cube.raw.source import ItemSource
from stac_latent.cube.raw.storage import with_room
from stac_latent.cube.raw.units import computes
from stac_latent.cube.ref import LatentRef
from stac_latent.cube.write.writer import WriteJob

__all__ = ["Task"]


@dataclass(frozen=True)
class Task:
    """One Item on its way into the catalogue."""

    item: pystac.Item
    key_frame: pystac.Item | None
    options: EncodeOptions
    """With the codec of the Item's bands."""
    sources: Sequence[ItemSource]
    """Pixels of each lattice."""
    name: str
    """Id of the Item that will carry the asset."""
    store: Path
    digest: str | None
    """Of all inputs; None where they cannot be told."""

    @property
    def thumbnail(self) -> Path:
        """Where the Item's picture lies."""
        return self.store.parent / "thumbnail.png"

    @property
    def is_drawn(self) -> bool:
        """Whether the Item gains a thumbnail, or a new one."""
        options = self.options
        wanted = options.thumbnail and options.key is None and options.codec.kind == "codec"
        other = options.mode == "beside" and has_other(self.item, self.thumbnail)
        return wanted and not other and can_be_drawn([b for s in self.sources for b in s.decoded])

    def job(self, folder: Path, bundle: Path) -> WriteJob:
        """What is to be written, with room for every value of the source where all of them are kept."""
        options = self.options
        policy, bound = options.quality.policy, options.error_bound
        exact = bound is not None or policy == "fallback" or not computes(options.codec)
        sources = [with_room(s, exact=exact) for s in self.sources]
        coders = [s.codec.with_target(options.target, bands=s.decoded) for s in sources]
        frame = None if self.key_frame is None else LatentRef.from_item(self.key_frame, options.asset)
        return WriteJob(
            sources,
            coders,
            folder,
            options.payload,
            bundle,
            frame,
            bound,
            options.quality,
            options.key,
            options.layout,
            options.pack is not None,
        )
