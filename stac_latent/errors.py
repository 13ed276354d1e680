"""Every error that the package raises on purpose, and what none of them shows.

An error says what it got, what it expected and the way out. All derive from :class:`StacLatentError`, so a
caller can tell bad input (ours) from a bug (anything else).
"""

from __future__ import annotations

import re

__all__ = [
    "MALFORMED",
    "BundleError",
    "CatalogError",
    "CodecError",
    "CorruptDataError",
    "EncryptionError",
    "FieldError",
    "GridError",
    "GuardError",
    "GuardWarning",
    "OptionError",
    "RecallWarning",
    "RemoteError",
    "SearchError",
    "SettingError",
    "SkippedWarning",
    "SlowWarning",
    "SourceWarning",
    "StacLatentError",
    "TrainError",
    "UnresolvedSpaceError",
    "VerificationError",
    "without_secrets",
]

MALFORMED = (
    KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError, RecursionError, AssertionError,
    MemoryError,
)  # fmt: skip
"""What Python, numpy and stages raise for a document that is not as it should be: callers turn these into errors of their own."""

_ADDRESS = re.compile(r"(?<![A-Za-z0-9+.-])((?!file:)[A-Za-z][A-Za-z0-9+.-]+://)([^\s'\"<>]+)")
_VALUE = re.compile(r"(?<=[?&;])([^=&;\s'\"<>#]+)=[^&;\s'\"<>)#]+")
"""A value after a question mark, where a message quotes no more of the address."""


def without_secrets(text: str) -> str:
    """A message that may quote addresses, without what may be secret in them.

    Examples
    --------
    >>> without_secrets("cannot open '/vsicurl/https://me:pass@x.org/a.tif?sig=abc'")
    "cannot open '/vsicurl/https://...@x.org/a.tif?sig=...'"
    """
    return _VALUE.sub(r"\1=...", _ADDRESS.sub(_without, text))


def _without(found: re.Match[str]) -> str:
    """An address without its user, password, values and fragment."""
    place, mark, rest = re.fullmatch(r"([^?#]*)([?#]?)(.*)", found[2], re.DOTALL).groups()  # type: ignore[union-attr]
    host, slash, path = place.partition("/")
    if "@" not in host and "@" in path and re.search(r":(?!\d*$)", host):  # a password with a slash in it
        host, slash, path = f"@{place.rpartition('@')[2]}".partition("/")
    host = f"...@{host.rpartition('@')[2]}" if "@" in host else host
    end = None if rest.endswith("...") else re.search(r"[).,:;\]}]*$", rest)
    tail = "" if end is None else end[0]
    query, hashed, _ = rest[: len(rest) - len(tail)].partition("#")
    parts = [
        f"{part.partition('=')[0]}=..." if "=" in part else "..." for part in re.split("[&;]", query) if part
    ]
    said = "..." if mark == "#" else "&".join(parts) + ("#..." if hashed else "")
    return f"{found[1]}{host}{slash}{path}{mark}{said if mark else ''}{tail}"


class StacLatentError(Exception):
    """Base class of every deliberate error of this package; what is secret in addresses is left out of its text."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(without_secrets(a) if isinstance(a, str) else a for a in args))


class FieldError(StacLatentError, ValueError):
    """A field (pixels) does not fit the codec: wrong bands, dtype, shape or unit."""


class GridError(StacLatentError, ValueError):
    """A grid is missing, ambiguous, or off the cell lattice."""


class CodecError(StacLatentError, ValueError):
    """A codec is unknown, or its chain is not well formed."""


class BundleError(StacLatentError, ValueError):
    """A codec bundle is incomplete, malformed, or not the one that was asked for."""


class UnresolvedSpaceError(BundleError):
    """No bundle with the wanted digest was found; the message lists where it was looked for."""


class CorruptDataError(StacLatentError, ValueError):
    """Stored bytes are truncated or were changed: a checksum or a declared size does not hold."""


class EncryptionError(StacLatentError, ValueError):
    """What is encrypted cannot be opened: no key, another key, or changed bytes."""


class VerificationError(StacLatentError, RuntimeError):
    """What was written does not decode to what it should; nothing was catalogued."""


class CatalogError(StacLatentError, ValueError):
    """An Item, Asset or catalogue does not say what is needed, or says it wrongly."""


class GuardError(StacLatentError, ValueError):
    """A guard or a check refuses an Item; it was not catalogued."""


class GuardWarning(UserWarning):
    """A guard or a check finds an Item unusual; it was catalogued, and says so."""


class SkippedWarning(UserWarning):
    """One of many things could not be done; it was left out, and the others went on."""

    def __init__(self, name: str, error: Exception) -> None:
        super().__init__(f"{name!r} was left out: {type(error).__name__}: {error}")
        self.name, self.error = name, error


class OptionError(StacLatentError, TypeError):
    """A verb is given an option that it does not have, or lacks an argument that it needs."""


class RecallWarning(GuardWarning):
    """Vectors as they are stored, or an index, find fewer of the true neighbours than they should; the message has the measured share."""


class SlowWarning(UserWarning):
    """Decoding runs without its compiled loops: the same pixels, several times later; the message says why and what helps."""


class SourceWarning(UserWarning):
    """A raw file and its Item disagree, or a file holds what its Item does not say; the rule that was taken is named."""


class RemoteError(CatalogError):
    """A server or an object store does not give what a link promises: it refuses, is silent, or sends something else."""


class SearchError(StacLatentError, ValueError):
    """A search cannot be carried out: a bad query, or a source that does not answer."""


class SettingError(StacLatentError, ValueError):
    """A variable of the environment does not hold what it should."""


class TrainError(StacLatentError, ValueError):
    """A training cannot start or go on: its configuration, its data or its checkpoint do not fit."""
