"""Every error that the package raises on purpose.

An error says what it got, what it expected and the way out. All derive from :class:`StacLatentError`, so a
caller can tell bad input (ours) from a bug (anything else).
"""

from __future__ import annotations

from stac_latent.redact import without_secrets

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
]

MALFORMED = (
    KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError, RecursionError, AssertionError,
    MemoryError,
)  # fmt: skip
"""What Python, numpy and stages raise for a document that is not as it should be: callers turn these into errors of their own."""


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
