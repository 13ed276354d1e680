"""Dates of a series and their key frames: the order of encoding, and the link from one to the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import pystac

from stac_latent.aliases import Progress
from stac_latent.codec.codec import Codec
from stac_latent.cube.keyframe.choose import Sample, best_key_frame, plan_key_frames
from stac_latent.cube.keyframe.decode import lin_stage
from stac_latent.cube.ref import LatentRef
from stac_latent.cube.write.verify import Source
from stac_latent.errors import CatalogError
from stac_latent.extension import LatentExtension
from stac_latent.extension.features import declare_features
from stac_latent.store.zarr.group import Payload

__all__ = ["REFERENCE_REL", "References", "check_references", "dates", "reference_link", "set_reference"]

REFERENCE_REL = "latent:reference"
References = int | Literal["auto"] | pystac.Item | Sequence[pystac.Item] | None
"""What dates are coded against: see :func:`stac_latent.encode`."""


def dates(
    items: Sequence[pystac.Item],
    references: References,
    codec: Codec,
    payload: Payload,
    key: str,
    open_source: Callable[[pystac.Item], Source],
    progress: Progress | None = None,
) -> Iterator[tuple[int, int | pystac.Item | None]]:
    """Positions of the Items in the order of encoding, each with the position of its key frame, or the key frame.

    Raises
    ------
    CatalogError
        If there are references and the payload is plain, or they are given otherwise than expected.
    CodecError
        If the codec cannot code against a key frame.
    """
    if references is None:
        yield from ((i, None) for i in range(len(items)))
        return
    lin_stage(codec)
    if payload != "coded":
        raise CatalogError(
            f"references={references!r} need payload='coded': what is left of a date is small only when coded"
        )
    if isinstance(references, pystac.Item):
        yield from ((i, references) for i in range(len(items)))
        return
    if isinstance(references, Sequence) and not isinstance(references, str):
        frames = [f for f in references if key in f.assets]
        refs = [LatentRef.from_item(f, key) for f in frames]
        samples: dict[int, Sample] = {}
        for i, item in enumerate(items):
            others = {k: r for k, r in enumerate(refs) if frames[k].id not in (item.id, f"{item.id}-{key}")}
            best = best_key_frame(open_source(item), codec, others, samples)
            yield i, None if best is None else frames[best]
        return
    by_time = sorted(range(len(items)), key=lambda i: (_time(items[i]), i))
    plan = plan_key_frames([open_source(items[i]) for i in by_time], codec, references, progress)
    for k in plan.order:
        frame = plan.of[k]
        yield by_time[k], None if frame is None else by_time[frame]


def set_reference(item: pystac.Item, key: str, frame: pystac.Item | None) -> None:
    """Say in the Item what its asset ``key`` was coded against, or that it stands alone.

    Parameters
    ----------
    item
        Has the asset.
    key
        Key of the asset, and of that of the key frame.
    frame
        Item with the key frame; None for none.
    """
    item.links = [
        link
        for link in item.links
        if not (link.rel == REFERENCE_REL and link.extra_fields.get("latent:asset") == key)
    ]
    fields = item.assets[key].extra_fields
    fields.pop("latent:reference_item", None)
    if frame is not None:
        fields["latent:reference_item"] = frame.id
        item.add_link(reference_link(frame, key))
    declare_features(fields)


def reference_link(frame: pystac.Item, key: str) -> pystac.Link:
    """Link from a date to the Item with its key frame.

    Raises
    ------
    CatalogError
        If the key frame's Item has no address.
    """
    href = frame.get_self_href()
    if href is None:
        raise CatalogError(
            f"the key frame {frame.id!r} has no self href: read it from its catalogue, with Item.from_file(href)"
        )
    link = pystac.Link(
        REFERENCE_REL, href, media_type=pystac.MediaType.GEOJSON, title=f"Key frame {frame.id}"
    )
    LatentExtension.ext(link).apply(space=LatentRef.from_item(frame, key).spec.space, asset=key)
    return link


def _time(item: pystac.Item) -> str:
    when = item.datetime or item.common_metadata.start_datetime
    return when.isoformat() if when is not None else ""


def check_references(item: pystac.Item, codec: Codec, references: References) -> None:
    """Refuse key frames for bands of several native grids."""
    if references is not None and (max(codec.native_pixels) > 1 or len(codec.grid_chains) > 1):
        raise CatalogError(
            f"the bands of item {item.id!r} lie on several native grids, and key frames are for bands of one: leave references "
            "out, or state a grid with resolution="
        )
