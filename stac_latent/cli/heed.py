"""What the guard and the checks say, on stderr."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from stac_latent.cli.common import err
from stac_latent.errors import GuardError, GuardWarning

__all__ = ["heeding"]


@contextmanager
def heeding(refused: list[str]) -> Iterator[None]:
    """Print warnings of the guard as lines, and keep what it refuses instead of ending the command."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", GuardWarning)
        try:
            yield
        except GuardError as exc:
            refused.append(str(exc))
            _line("bold red", "refused", str(exc))
    for warning in caught:
        if issubclass(warning.category, GuardWarning):
            _line("yellow", "warning", str(warning.message))
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def _line(style: str, label: str, text: str) -> None:
    err.print(f"[{style}]{label}[/{style}] ", end="")
    err.print(text, markup=False, highlight=False, soft_wrap=True)
