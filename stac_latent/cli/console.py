"""Printing: what documents and paths say is shown as text, whatever is in it, on every terminal and in every pipe."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.text import Text

from stac_latent.errors import without_secrets

__all__ = ["PlainConsole", "as_text", "err", "out", "print_json", "print_lines", "say", "speaking"]

_STEERING = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f\ud800-\udfff]"
)
"""Characters that steer a terminal or the direction of text, those that are not seen, and halves of characters."""


def as_text(text: str) -> str:
    r"""A text with escapes for all that would steer a terminal; on one line.

    Examples
    --------
    >>> print(as_text("a\x1b[2Jb\nc"))
    a\x1b[2Jb\nc
    """
    return _STEERING.sub(lambda m: m[0].encode("unicode_escape").decode(), text)


class PlainConsole(Console):
    """A console that takes every string for text: brackets and colons mean nothing, and nothing in it steers the terminal."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Text of a string."""
        return super().render_str(as_text(text), **options)


out = PlainConsole(soft_wrap=True, width=None if sys.stdout.isatty() else 160)
err = PlainConsole(stderr=True, soft_wrap=True)


def say(style: str, label: str, text: str) -> None:
    """One line on stderr, that begins with a coloured word."""
    err.print(Text.assemble((label, style), " ", as_text(text)))


def print_lines(text: str) -> None:
    """Print a text of several lines as they are."""
    for line in text.splitlines():
        out.print(line)


def print_json(value: Any) -> None:
    """Write one JSON document to stdout; it stays JSON in every encoding, and does not steer a terminal."""
    unicode = str(sys.stdout.encoding or "").lower().startswith("utf")
    text = json.dumps(value, indent=2, ensure_ascii=not unicode)
    sys.stdout.write("\n".join(_STEERING.sub(_escape, line) for line in text.split("\n")) + "\n")


def _escape(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1]


@contextmanager
def speaking() -> Iterator[None]:
    """Inside, nothing that is printed fails for its characters, and warnings, logs and tracebacks show no secret.

    What is not UTF-8 gets ASCII: other characters are written as escapes.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            unicode = stream.encoding.lower().startswith("utf")
            stream.reconfigure(encoding=None if unicode else "ascii", errors="backslashreplace")
    logging.lastResort = _Lines(logging.WARNING)
    sys.excepthook = _uncaught
    with warnings.catch_warnings():
        warnings.showwarning = _warned
        yield


class _Lines(logging.Handler):
    """What libraries log, where nobody asked for a log."""

    def emit(self, record: logging.LogRecord) -> None:
        say("yellow", record.levelname.lower(), without_secrets(record.getMessage()))


def _warned(message: Warning | str, category: type[Warning], *_args: object, **_kwargs: object) -> None:
    kind = "" if category is UserWarning else f"{category.__name__}: "
    say("yellow", "warning", f"{kind}{without_secrets(str(message))}")


def _uncaught(kind: type[BaseException], exc: BaseException, tb: Any) -> None:
    for part in traceback.format_exception(kind, exc, tb):
        for line in part.splitlines():
            err.print(without_secrets(line))
