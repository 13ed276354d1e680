"""Find codecs: by name (entry points), by path or by space.

Plug-in packages add a name with the entry point group ``stac_latent.codecs``; its value is a callable that takes
keyword options and returns a :class:`~stac_latent.codec.codec.Codec`.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from stac_latent.codec.bundle import load_bundle
from stac_latent.codec.codec import Codec
from stac_latent.errors import BundleError, CodecError, UnresolvedSpaceError
from stac_latent.system.files import cache_folder
from stac_latent.system.session import session
from stac_latent.system.suggest import did_you_mean

__all__ = [
    "codec_names",
    "describe_codec",
    "factory_of",
    "open_codec",
    "opened",
    "remember",
    "replace_known",
    "resolve_space",
]


class _Codecs:
    """Codecs that this process knows, by space."""

    def __init__(self) -> None:
        self.opened: dict[str, Codec] = {}
        self.installed: dict[str, Codec] | None = None


def _codecs() -> _Codecs:
    return session().of(_Codecs)


def codec_names() -> list[str]:
    """Names of the installed codecs, sorted."""
    return sorted({p.name for p in entry_points(group="stac_latent.codecs")})


def describe_codec(name: str) -> dict[str, Any]:
    """Facts on an installed codec; what depends on options that it was not given is None."""
    row: dict[str, Any] = {
        "name": name,
        "kind": "codec",
        "bands": None,
        "stride": "",
        "dimensions": None,
        "space": None,
    }
    try:
        codec = open_codec(name)
    except CodecError as exc:
        return {**row, "about": str(exc)}
    return {
        "name": name,
        "kind": codec.kind,
        "bands": [b.name for b in codec.bands],
        "stride": "x".join(map(str, codec.stride)),
        "dimensions": codec.spec.dimensions,
        "space": codec.space,
        "about": codec.about.get("description", ""),
    }


def remember(codec: Codec) -> Codec:
    """Keep an opened codec for this process, so that its space resolves; returns the one already known.

    Codecs of one space may differ in what is no part of it, such as names or the step that they code at: then the new one is
    returned. The space resolves to one at its own rate.
    """
    known = _codecs().opened.setdefault(codec.space, codec.at_own_rate())
    if codec.target.given:
        return codec
    same = all(getattr(known, n) == getattr(codec, n) for n in ("bands", "stats", "untyped"))
    return known if same and known.about.get("guard") == codec.about.get("guard") else codec


def opened(space: str) -> Codec | None:
    """Codec of a space that was opened before in this process."""
    return _codecs().opened.get(space)


def replace_known(codec: Codec) -> None:
    """Let the space of a codec resolve to this one from now on, as after a restart."""
    _codecs().opened[codec.space] = codec


def factory_of(name: str) -> Callable[..., Codec] | None:
    """What makes an installed codec from keyword options; None where none has that name."""
    points = entry_points(group="stac_latent.codecs", name=name)
    return next(iter(points)).load() if points else None


def open_codec(name: Any, **options: Any) -> Codec:
    """Open a codec by name or bundle folder; :func:`stac_latent.open_codec` takes STAC Items as well.

    Raises
    ------
    CodecError
        If there is none, or it does not take these options.
    """
    if isinstance(name, Codec):
        return name
    if isinstance(name, str) and (factory := factory_of(name)) is not None:
        return remember(_from_factory(name, factory, options))
    if isinstance(name, str | os.PathLike):
        path = Path(name)
        if path.is_dir():
            if options:
                raise CodecError(f"a bundle takes no options; got {sorted(options)}")
            return remember(load_bundle(path))
        raise CodecError(
            f"no codec {str(name)!r}{did_you_mean(str(name), codec_names(), numbered=False)}: it is neither installed ({', '.join(codec_names()) or 'none are'}) nor a bundle "
            "folder with codec.json; 'stac-latent codecs' lists what is installed"
        )
    raise CodecError(f"open_codec takes a name, a bundle folder or a STAC Item; got {type(name).__name__}")


def _from_factory(name: str, factory: Callable[..., Codec], options: dict[str, Any]) -> Codec:
    parameters = inspect.signature(factory).parameters
    known = [n for n, p in parameters.items() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    unknown = [n for n in options if n not in known]
    if unknown and len(known) == len(parameters):
        named = ", ".join(f"{n!r}{did_you_mean(n, known)}" for n in unknown)
        own = "; its bands are fixed, and encode(bands=) pairs them with others" if "bands" in unknown else ""
        raise CodecError(
            f"codec {name!r} does not take these options ({sorted(options)}): it has no {named}; it takes "
            f"{', '.join(known) or 'none'}{own}"
        )
    try:
        return factory(**options)
    except TypeError as exc:
        raise CodecError(f"codec {name!r} does not take these options ({sorted(options)}): {exc}") from exc


def _installed() -> dict[str, Codec]:
    """Installed codecs that need no options, by space."""
    kept = _codecs()
    if kept.installed is not None:
        return kept.installed
    out = {}
    for name in codec_names():
        try:
            codec = open_codec(name)
        except (CodecError, BundleError, ImportError):
            continue
        out[codec.space] = codec
    kept.installed = out
    return out


def resolve_space(space: str, tried: Iterable[str] = ()) -> Codec:
    """Codec of a digest: opened before in this process, installed, or in the local cache.

    Parameters
    ----------
    space
        Digest to find.
    tried
        Places already searched, for the error.

    Raises
    ------
    UnresolvedSpaceError
        If none has that digest; the message lists where it looked.
    """
    if (known := opened(space)) is not None:
        return known
    if space in (installed := _installed()):
        return remember(installed[space])
    local = cache_folder() / "codecs" / space.removeprefix("sha256:")
    if local.is_dir():
        return remember(load_bundle(local, space=space))
    places = [
        *tried,
        "codecs opened in this process",
        f"installed codecs ({', '.join(codec_names())})",
        str(local),
    ]
    raise UnresolvedSpaceError(
        f"no codec bundle has digest {space}; looked in: {'; '.join(places)}. Add a latent:decoder link to the item, or "
        "open the bundle first with open_codec(path)"
    )
