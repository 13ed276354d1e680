"""Names from documents, ids, keys and names of codecs, that become names of files and folders."""

from __future__ import annotations

import unicodedata

from stac_latent.errors import CatalogError

__all__ = ["plain_name", "safe_name"]

_LONGEST = 200
"""Bytes of a name: file systems have 255, and temporary names are longer."""
_SEPARATORS = frozenset('/\\:*?"<>|#%')
"""What separates or ends a name in a path or an address, of any system."""


def safe_name(name: str, what: str = "id") -> str:
    """Refuse ids, keys and names from documents that are no file names.

    Parameters
    ----------
    name
        Taken for the name of a file or folder as it is.
    what
        What errors call it.

    Raises
    ------
    CatalogError
        For names with separators or marks that end a path in an address, hidden ones, ``..``, those with characters that are not
        printed, and those of more than 200 bytes.

    Examples
    --------
    >>> safe_name("S2A_T33UVP")
    'S2A_T33UVP'
    >>> safe_name("../other")
    Traceback (most recent call last):
    stac_latent.errors.CatalogError: id '../other' cannot be a file name: ...
    """
    if (
        not name
        or name[0] in ". "
        or name[-1] in ". "
        or any(c in _SEPARATORS or _unprinted(c) for c in name)
        or len(name.encode()) > _LONGEST
    ):
        said = repr(name) if len(name) <= _LONGEST else f"{name[:40]!r}..., of {len(name)} characters,"
        raise CatalogError(
            f"{what} {said} cannot be a file name: use letters, digits, '-', '_' and '.', at most {_LONGEST}, and no '.' or space "
            "at an end"
        )
    return name


def plain_name(text: str) -> str:
    """A file name that is as like a text as :func:`safe_name` allows, for files that nothing links to.

    Examples
    --------
    >>> plain_name("../../a:b")
    'a_b'
    """
    kept = "".join("_" if c in _SEPARATORS or _unprinted(c) else c for c in text)
    return kept.encode()[: _LONGEST // 2].decode(errors="ignore").strip("._ ") or "_"


def _unprinted(char: str) -> bool:
    """Whether a character is a control character, one that only steers, or half of one."""
    return unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")
