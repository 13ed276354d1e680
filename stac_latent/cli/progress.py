"""Progress on stderr: one bar on a terminal, a line every half minute in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TextColumn

from stac_latent.cli.console import PlainConsole, as_text, err

__all__ = ["Report", "progress"]

_COUNTED = {"items": "item", "assets": "asset"}
"""Labels that count what a run goes through; others are steps of one of these, or of the whole."""


class Report:
    """What a command has done so far: called as ``report(label, done, total)`` by what does it.

    The labels ``items`` and ``assets`` count what the run goes through; others are steps of one of them, or of the whole.

    Parameters
    ----------
    show
        Called with a line and the share that is done, whenever something was.
    clock
        Gives the time in seconds.
    """

    def __init__(
        self, show: Callable[[str, float], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._show, self._clock = show, clock
        self._begin = self._step_begin = clock()
        self._counted: tuple[str, int, int] | None = None
        self._step, self._reached = "", 0.0
        self._names: Sequence[str] = ()

    def over(self, names: Sequence[str]) -> None:
        """Name the Items that are worked on, one after the other."""
        self._names = names

    def __call__(self, label: str, done: int, total: int | None) -> None:
        """Take note that ``done`` of ``total`` are done, and show it."""
        now, inner = self._clock(), min(done / total, 1.0) if total else 0.0
        of = "" if total is None else f" of {total:,}"
        if label in _COUNTED and total is not None:
            self._counted, self._step, self._reached = (_COUNTED[label], done, total), "", inner
            self._show(", ".join(self._words(inner, now - self._begin)), inner)
            return
        if label != self._step:
            self._step, self._step_begin = label, now
        if self._counted is None:
            words = [f"{label} {done:,}{of}", *self._pace(inner, now - self._step_begin)]
            self._show(", ".join(words), inner)
            return
        part = (
            inner / 2 if label.startswith("encode") else (1 + inner) / 2
        )  # the other half is what checks it
        self._reached = max(self._reached, min((self._counted[1] + part) / max(self._counted[2], 1), 1.0))
        words = self._words(self._reached, now - self._begin)
        self._show(", ".join([words[0], f"{label} {done:,}{of}", *words[1:]]), self._reached)

    def _words(self, share: float, seconds: float) -> list[str]:
        what, done, total = self._counted or ("", 0, 0)
        named = f" ({self._names[done]})" if done < len(self._names) else ""
        return [f"{what} {min(done + 1, total):,} of {total:,}{named}", *self._pace(share, seconds)]

    def _pace(self, share: float, seconds: float) -> list[str]:
        """How many a minute, and the time that is left; nothing before there is something to tell from."""
        if not 0 < share < 1 or seconds < 1:
            return []
        left = seconds / share * (1 - share)
        shown = (
            f"{left:.0f} s"
            if left < 100
            else f"{left / 60:.0f} min"
            if left < 6000
            else f"{left / 3600:.1f} h"
        )
        if self._counted is None or self._counted[2] == 1:
            return [f"{shown} left"]
        what, _, total = self._counted
        return [f"{60 * share * total / seconds:.3g} {what}s/min", f"{shown} left"]


@contextmanager
def progress(quiet: bool, every: float = 30.0, console: PlainConsole = err) -> Iterator[Report]:
    """A report that is seen: one bar on a terminal, unless ``quiet``; elsewhere a line each ``every`` seconds."""
    if console.is_terminal:
        columns = (BarColumn(), TextColumn("{task.description}", markup=False))
        with Progress(*columns, console=console, transient=True, disable=quiet) as bar:
            task = bar.add_task("", total=1.0)
            yield Report(lambda words, share: bar.update(task, description=as_text(words), completed=share))
        return
    spoken = time.monotonic()

    def speak(words: str, _share: float) -> None:
        nonlocal spoken
        if time.monotonic() - spoken >= every:
            spoken = time.monotonic()
            console.print(words)

    yield Report(speak)
