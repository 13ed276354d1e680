"""From a reference to its opened store, with what need not be read of it."""

from __future__ import annotations

from dataclasses import replace

from stac_latent.codec.codec import Codec
from stac_latent.cube.ref import LatentRef
from stac_latent.store.zarr.group import LatentArrays, Payload, open_arrays
from stac_latent.store.zarr.known_metadata import absent_chunks, known_metadata
from stac_latent.store.zarr.remote_store import RemoteStore
from stac_latent.system.links import is_local

__all__ = ["open_store"]


def open_store(ref: LatentRef, codec: Codec | None) -> LatentArrays:
    """Arrays of a latent asset; a remote store's metadata is made from codec and grid where the Item pins it.

    Parameters
    ----------
    ref
        What to open.
    codec
        Codec of its space; None where it is not needed, and metadata is read then.

    Raises
    ------
    CorruptDataError
        If there is no readable store, or it contradicts the Item.
    """
    metadata: dict[str, bytes] = {}
    if codec is not None and ref.metadata is not None and ref.sealed is None and not is_local(ref.href):
        payload: Payload = "plain" if ref.spec.bitstream is None else "coded"
        metadata = known_metadata(ref.metadata, codec, ref.grid, payload)
    encryption = None if ref.sealed is None else ref.sealed.open()
    arrays = open_arrays(
        ref.href, ref.spec, ref.grid, encryption, sign=ref.sign, known=metadata, chip=ref.chip
    )
    mask = arrays.mask
    if ref.masks is None or mask is None:
        return arrays
    if ref.chip is not None:  # a file holds the chunks of other chips as well
        absent_chunks(mask, ref.masks)  # refuses what was said of another mask
        return arrays if ref.masks.strip("0") else replace(arrays, mask=None)
    if isinstance(mask.store, RemoteStore):
        mask.store.lacks(absent_chunks(mask, ref.masks))
    return arrays
