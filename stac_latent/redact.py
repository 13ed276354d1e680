"""What no message shows: users, passwords, signatures and tokens in addresses."""

from __future__ import annotations

import re

__all__ = ["without_secrets"]

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
