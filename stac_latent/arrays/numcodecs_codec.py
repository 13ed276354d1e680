"""The codec of arrays for numcodecs, hence for Zarr 2, kerchunk and what else takes a ``numcodecs.abc.Codec``."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from numcodecs.abc import Codec
from numcodecs.compat import ensure_bytes, ensure_ndarray, ndarray_copy
from numcodecs.registry import register_codec

from stac_latent.arrays.array_chunk import decode_chunk, encode_chunk
from stac_latent.arrays.settings import NAME, Settings
from stac_latent.errors import CorruptDataError

__all__ = ["NumcodecsLatent"]


class NumcodecsLatent(Codec):  # type: ignore[misc]
    """Codes arrays with a codec of this package, for numcodecs; the options are those of :class:`stac_latent.Latent`.

    numcodecs knows no fill value: give ``nodata`` where pixels without data are to stay what they are.

    Raises
    ------
    CodecError
        If there is no such codec, or it cannot do what is asked of it.
    OptionError
        If there is no such option.

    Examples
    --------
    >>> import numcodecs
    >>> import numpy as np
    >>> codec = NumcodecsLatent(error_bound=0.5)
    >>> x = np.hypot(*np.mgrid[:64, :64]).astype(np.float32)
    >>> y = numcodecs.get_codec(codec.get_config()).decode(codec.encode(x))
    >>> y.shape, y.dtype, bool(abs(x - y).max() <= 0.5)
    ((64, 64), dtype('float32'), True)
    """

    codec_id: ClassVar[str] = NAME

    def __init__(self, codec: str = "lin", **options: Any) -> None:
        self.settings = Settings.of({"codec": codec, **options}, "NumcodecsLatent()")

    def encode(self, buf: Any) -> bytes:
        """Bytes of an array."""
        return encode_chunk(ensure_ndarray(buf), self.settings)

    def decode(self, buf: Any, out: Any = None) -> Any:
        """The array, of its type, shape and order; in ``out`` where that is given.

        Raises
        ------
        CorruptDataError
            If the bytes were truncated or changed, or ``out`` has not their size.
        """
        values = decode_chunk(ensure_bytes(buf), self.settings).values
        if out is None:
            return values
        if ensure_ndarray(out).nbytes != values.nbytes:
            raise CorruptDataError(
                f"the bytes decode to {values.nbytes} bytes ({values.shape} {values.dtype}); out has {ensure_ndarray(out).nbytes}"
            )
        return ndarray_copy(values, out)

    def get_config(self) -> dict[str, Any]:
        """Configuration as JSON has it."""
        return {"id": NAME, **self.settings.to_config()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Inverse of :meth:`get_config`; numcodecs has taken the id away."""
        codec = cls.__new__(cls)
        codec.settings = Settings.from_config(
            {k: v for k, v in config.items() if k != "id"}, f"codec {NAME!r}"
        )
        return codec

    def __repr__(self) -> str:
        given = ", ".join(f"{k}={v!r}" for k, v in self.settings.to_config().items())
        return f"NumcodecsLatent({given})"


register_codec(NumcodecsLatent)  # beside the entry point, which a copy that is not installed lacks
