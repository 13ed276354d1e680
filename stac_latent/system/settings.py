"""Numbers in the environment."""

from __future__ import annotations

import os

from stac_latent.errors import SettingError

__all__ = ["seconds", "whole_number"]


def whole_number(name: str, default: int, what: str, least: int = 0) -> int:
    """Number that a variable holds; ``default`` where it is not set, or empty.

    Parameters
    ----------
    name
        Of the variable.
    default
        Where it is not set.
    what
        What it counts, for the error.
    least
        Smallest number that makes sense.

    Raises
    ------
    SettingError
        If it holds something else.
    """
    text = os.environ.get(name) or ""
    if not text.strip():
        return default
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise SettingError(
            f"{name}={text!r} is no number of {what}; expected a whole number such as {default}, or unset it"
        )
    return value


def seconds(name: str, default: float, *, zero: bool = False) -> float:
    """As :func:`whole_number`, of seconds, which may have a fraction; ``zero``: none at all make sense, too."""
    text = os.environ.get(name) or ""
    if not text.strip():
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf") or (value == 0 and not zero):
        raise SettingError(
            f"{name}={text!r} is no number of seconds; expected one such as {default:g}, or unset it"
        )
    return value
