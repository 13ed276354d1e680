"""What the guard, the checks and the reading of raw files say, and what is left out of a run over many things, on stderr."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from stac_latent.cli.console import err, say
from stac_latent.errors import GuardError, GuardWarning, SkippedWarning, SourceWarning

if TYPE_CHECKING:
    from stac_latent.catalog.encode.messages import ItemOutcome

__all__ = ["Heard", "KeepGoing", "heeding", "report_failures", "saying"]

KeepGoing = Annotated[
    bool,
    typer.Option(
        "--keep-going/--stop-at-error",
        help="What cannot be done is named, left out and listed at the end, with exit code 1; or ends the run.",
    ),
]


@contextmanager
def saying(outcomes: Sequence[ItemOutcome], total: int, where: str) -> Iterator[None]:
    """Say how far a run over many things came when it is interrupted; ``outcomes`` is filled meanwhile."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as exc:
        done = sum(outcome.state != "failed" for outcome in outcomes)
        exc.add_note(
            f"{done} of {total} are done and in {where}, and nothing half-written is kept; run the same command again to go on"
        )
        raise


class Heard:
    """What became of things that were not done."""

    def __init__(self) -> None:
        self.refused: list[str] = []
        """Texts of the guard."""
        self.failed: list[dict[str, str]] = []
        """``item`` and ``error`` of what was left out."""

        self.unread: list[tuple[str, str]] = []
        """Addresses and errors of documents that could not be read."""

    def rows(self) -> list[dict[str, str]]:
        """All that was left out, but what was refused."""
        return [{"item": where, "error": text} for where, text in self.unread] + self.failed

    def to_dict(self) -> dict[str, object]:
        """What there is of it, as JSON has it."""
        found = {"refused": self.refused, "failed": self.rows()}
        return {name: rows for name, rows in found.items() if rows}


@contextmanager
def heeding(heard: Heard) -> Iterator[None]:
    """Print warnings of the guard as lines, and keep what it refuses, or what is skipped, instead of ending the command."""
    texts: set[str] = set()
    with warnings.catch_warnings():
        for category in (GuardWarning, SkippedWarning, SourceWarning):
            warnings.simplefilter("always", category)
        others = warnings.showwarning

        def hear(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if not _heed(message, heard, texts):
                others(message, category, filename, lineno, file, line)

        warnings.showwarning = hear
        try:
            yield
        except GuardError as exc:
            _refused(exc, heard)


def _heed(said: Warning | str, heard: Heard, texts: set[str]) -> bool:
    """Print and keep a warning of the package as soon as it comes; whether it is one."""
    if isinstance(said, SkippedWarning) and isinstance(said.error, GuardError):
        _refused(said.error, heard)
    elif isinstance(said, SkippedWarning):
        heard.failed.append({"item": said.name, "error": f"{type(said.error).__name__}: {said.error}"})
        say("bold red", "failed", str(said))
    elif isinstance(said, SourceWarning) and str(said) in texts:
        pass  # of another part of the same file
    elif isinstance(said, GuardWarning | SourceWarning):
        texts.add(str(said))
        say("yellow", "warning", str(said))
    else:
        return False
    return True


def report_failures(heard: Heard, total: int) -> None:
    """List at the end what was left out, and end with exit code 1 where that is anything."""
    rows = heard.rows()
    if rows:
        err.print(f"{len(rows)} of {total + len(heard.unread)} could not be done:")
    for row in rows:
        say("bold red", "failed", f"{row['item']}: {row['error']}")
    if rows or heard.refused:
        raise typer.Exit(1)


def _refused(exc: GuardError, heard: Heard) -> None:
    heard.refused.append(str(exc))
    say("bold red", "refused", str(exc))
