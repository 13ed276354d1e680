"""Author the STAC parts that make a latent decodable: the codec as an MLM Item, and the link to it.

Everything here is pure, but for reading the files that are described: nothing is written.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pystac

from stac_latent.codec.bundle import FILES
from stac_latent.errors import BundleError, CatalogError
from stac_latent.extension import DECODER_REL, LatentExtension
from stac_latent.extension.schemas import EO_URI, FILE_URI, MLM_URI, RASTER_URI
from stac_latent.spec import stac_type
from stac_latent.system.digests import multihash
from stac_latent.system.links import absolute, is_remote, local_path, relative

if TYPE_CHECKING:
    from stac_latent.codec.codec import Codec

__all__ = ["codec_item", "decoder_link", "file_fields"]

_BAND_URIS = {
    "eo:": EO_URI,
    "raster:": RASTER_URI,
}
_MLM_NAME = re.compile(r"^[a-zA-Z][a-zA-Z0-9_.\-\s]+[a-zA-Z0-9]$")
_WORLD = (-180.0, -90.0, 180.0, 90.0)
_ANY_TIME = (datetime(1900, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))


def file_fields(path: str | Path) -> dict[str, Any]:
    """``file:checksum`` (sha2-256 multihash, hexadecimal) and ``file:size`` [bytes] of a file.

    Raises
    ------
    CatalogError
        If the file cannot be read.

    Examples
    --------
    >>> file_fields(__file__)["file:checksum"][:4]
    '1220'
    """
    try:
        data = Path(path).read_bytes()
    except OSError as exc:
        raise CatalogError(
            f"cannot describe {str(path)!r}: {exc.strerror}; write the file before it is catalogued"
        ) from exc
    return {"file:checksum": multihash(data), "file:size": len(data)}


def codec_item(
    codec: Codec,
    bundle_dir: str | Path,
    *,
    href: str | Path | None = None,
    bbox: tuple[float, float, float, float] | None = _WORLD,
    interval: tuple[datetime, datetime] = _ANY_TIME,
    properties: dict[str, Any] | None = None,
) -> pystac.Item:
    """Describe a codec bundle as an MLM 1.5 Item, the target of ``latent:decoder`` links.

    Equal arguments give equal Items, byte for byte, whenever and with whatever version they are made: links pin the
    Item's checksum.

    Parameters
    ----------
    codec
        The codec.
    bundle_dir
        Folder with ``codec.json`` and ``codec.safetensors``.
    href
        Where the Item will be written; asset hrefs are relative to it. Default: ``item.json`` in ``bundle_dir``.
    bbox
        Where the codec is meant to be used (west, south, east, north; degrees); None: the Item has no geometry.
    interval
        When the codec is meant to be used (start, end).
    properties
        More Item properties, such as ``description`` and ``license``.

    Raises
    ------
    BundleError
        If a file of the bundle is not there.
    CatalogError
        If the codec's name is none that MLM allows.

    Examples
    --------
    >>> item = codec_item(codec, "codecs/s2")  # doctest: +SKIP
    >>> item.save_object(include_self_link=False, dest_href="codecs/s2/item.json")  # doctest: +SKIP
    """
    if not _MLM_NAME.match(codec.name):
        raise CatalogError(
            f"{codec.name!r} cannot be an mlm:name: expected at least three of letters, digits, '_', '.', '-' and "
            "space, from a letter to a letter or digit; rename the codec"
        )
    bands = [band.to_stac() for band in codec.spec.bands]
    prefixes = {key.partition(":")[0] + ":" for band in bands for key in band}
    item = pystac.Item(
        id=codec.name,
        geometry=None if bbox is None else _rectangle(bbox),
        bbox=None if bbox is None else list(bbox),
        datetime=None,
        start_datetime=interval[0],
        end_datetime=interval[1],
        properties={**_mlm_fields(codec), **(properties or {})},
        stac_extensions=[MLM_URI, FILE_URI, *(uri for p, uri in _BAND_URIS.items() if p in prefixes)],
    )
    LatentExtension.ext(item, add_if_missing=True).apply(spaces=[codec.space], kinds=[codec.spec.kind])
    folder = Path(bundle_dir)
    start = folder / "item.json" if href is None else Path(href)
    for key, asset in _bundle_assets(folder, start).items():
        item.add_asset(key, asset)
    # STAC 1.1 allows bands in the properties, where MLM looks for them, only if an asset has them too.
    item.assets["codec"].extra_fields["bands"] = bands
    item.properties["bands"] = [{"name": band["name"]} for band in bands]
    LatentExtension.ext(item.assets["codec"]).space = codec.space
    return item


def decoder_link(
    item_href: str | Path, codec_item_path: str | Path, space: str, *, rel: str = DECODER_REL
) -> pystac.Link:
    """Link from an Item to the codec that decodes it, pinned by checksum.

    Parameters
    ----------
    item_href
        Where the linking Item is, or will be; the link is relative to it if both are in one place.
    codec_item_path
        The codec's MLM Item: a JSON file that exists.
    space
        The codec's digest.
    rel
        ``latent:decoder``, or ``latent:encoder``.

    Raises
    ------
    CatalogError
        If there is no such file.
    """
    link = pystac.Link(
        rel,
        _relative(codec_item_path, item_href),
        media_type=pystac.MediaType.GEOJSON,
        title=f"Codec {space[:15]}",
        extra_fields=file_fields(codec_item_path),
    )
    LatentExtension.ext(link).space = space
    return link


def _mlm_fields(codec: Codec) -> dict[str, Any]:
    spec = codec.spec
    tasks = ["regression"] if spec.kind == "codec" else ["similarity-search"]
    names = [band.name for band in spec.bands]
    types = {stac_type(band.data_type) for band in spec.bands}
    return {
        "mlm:name": codec.name,
        "mlm:architecture": " > ".join(stage["stage"] for stage in codec.chain()),
        "mlm:framework": "stac-latent",
        "mlm:tasks": tasks,
        "mlm:input": [
            {
                "name": "field",
                "bands": names,
                "input": {
                    "shape": [len(names), -1, -1],
                    "dim_order": ["bands", "height", "width"],
                    "data_type": types.pop() if len(types) == 1 else "other",
                },
            }
        ],
        "mlm:output": [
            {
                "name": "latent",
                "tasks": tasks,
                "result": {
                    "shape": [spec.dimensions, -1, -1],
                    "dim_order": ["channel", "height", "width"],
                    "data_type": stac_type(spec.dtype),
                },
            }
        ],
    }


def _bundle_assets(folder: Path, start: Path) -> dict[str, pystac.Asset]:
    chain, weights = (folder / name for name in FILES)
    if missing := [path.name for path in (chain, weights) if not path.is_file()]:
        raise BundleError(
            f"{str(folder)!r} is no codec bundle: {', '.join(missing)} is not there; save the codec there first "
            "(stac_latent.codec.save_bundle)"
        )
    return {
        "codec": pystac.Asset(
            _relative(chain, start),
            title="Chain of stages",
            media_type=pystac.MediaType.JSON,
            roles=["mlm:model", "metadata"],
            extra_fields={"mlm:artifact_type": "stac-latent.bundle", **file_fields(chain)},
        ),
        "weights": pystac.Asset(
            _relative(weights, start),
            title="Tensors of the stages",
            media_type="application/vnd.safetensors",
            roles=["mlm:model", "mlm:weights"],
            extra_fields={"mlm:artifact_type": "safetensors.torch.save_file", **file_fields(weights)},
        ),
    }


def _relative(target: str | Path, start: str | Path) -> str:
    """Href of ``target`` as seen from the document ``start``; absolute if they are in different places."""
    place = absolute(str(target), None)
    return place if is_remote(str(start)) else relative(place, local_path(absolute(str(start), None)))


def _rectangle(bbox: tuple[float, float, float, float]) -> dict[str, Any]:
    west, south, east, north = bbox
    spans = [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]
    rings = [[[w, south], [e, south], [e, north], [w, north], [w, south]] for w, e in spans]
    if len(rings) == 1:
        return {"type": "Polygon", "coordinates": rings}
    return {"type": "MultiPolygon", "coordinates": [[ring] for ring in rings]}
