"""Surroundings in which Python, or a library, cannot work: no UTF-8 for names of files, a working folder that is gone."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from stac_latent.cli.console import say

__all__ = ["in_utf8", "somewhere"]


def in_utf8() -> None:
    """Start the command again in Python's UTF-8 mode where names of files are taken for ASCII."""
    if sys.getfilesystemencoding().lower().replace("-", "") != "utf8" and not sys.flags.utf8_mode:
        words = [sys.executable, "-m", "stac_latent", *sys.argv[1:]]
        os.execve(sys.executable, words, {**os.environ, "PYTHONUTF8": "1"})  # noqa: S606 - the same program


@contextmanager
def somewhere() -> Iterator[None]:
    """Work in an empty folder where the working folder was deleted, with a warning; absolute paths are as they were."""
    try:
        Path.cwd()
    except FileNotFoundError:
        place = tempfile.mkdtemp(prefix="stac-latent-")
        os.chdir(place)
        say(
            "yellow",
            "warning",
            f"the working folder was deleted; relative paths are taken from {place}, which is empty",
        )
        try:
            yield
        finally:
            with suppress(OSError):
                Path(place).rmdir()
        return
    yield
