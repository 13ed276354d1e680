"""Progress: one bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import io

from stac_latent.cli.console import PlainConsole
from stac_latent.cli.progress import Report, progress


def told(steps):
    """Lines and shares of ``(seconds, label, done, total)``, or of names."""
    now, lines = [0.0], []
    report = Report(lambda words, share: lines.append((words, share)), clock=lambda: now[0])
    for step in steps:
        if isinstance(step, list):
            report.over(step)
            continue
        now[0], *rest = step
        report(*rest)
    return lines


def test_items_are_named_and_what_is_left_is_told():
    lines = told(
        [
            (0, "items", 0, 4),
            ["scene-a", "b"],
            (30, "encode", 5, 10),
            (60, "encode", 10, 10),
            (90, "verify", 5, 10),
        ]
    )
    assert lines == [
        ("item 1 of 4", 0.0),
        (
            "item 1 of 4 (scene-a), encode 5 of 10, 0.5 items/min, 8 min left",
            1 / 16,
        ),
        ("item 1 of 4 (scene-a), encode 10 of 10, 0.5 items/min, 7 min left", 1 / 8),
        ("item 1 of 4 (scene-a), verify 5 of 10, 0.5 items/min, 6 min left", 3 / 16),
    ]
    assert told([(0, "items", 0, 2), (10, "items", 2, 2)])[-1] == ("item 2 of 2", 1.0)


def test_one_item_and_steps_of_the_whole():
    assert told([(0, "items", 0, 1), ["b"], (10, "encode g10", 1, 4)])[-1] == (
        "item 1 of 1 (b), encode g10 1 of 4, 70 s left",
        1 / 8,
    )
    assert told([(0, "read", 1, 10), (20, "read", 5, 10)])[-1] == ("read 5 of 10, 20 s left", 0.5)
    assert told([(0, "push", 1, None)]) == [("push 1", 0.0)]
    assert told([(0, "coders", 1, 100), (36_000, "coders", 2, 100)])[-1][0] == "coders 2 of 100, 490.0 h left"


def test_the_share_never_falls():
    shares = [
        s
        for _, s in told(
            [
                (0, "items", 0, 2),
                (1, "encode g10", 2, 2),
                (2, "measure", 1, 2),
                (3, "encode g20", 1, 2),
                (4, "items", 1, 2),
            ]
        )
    ]
    assert shares == sorted(shares)


def test_a_log_gets_a_line_now_and_then_and_no_bar():
    file = io.StringIO()
    with progress(True, every=0.0, console=PlainConsole(file=file, width=200)) as report:
        report("items", 1, 3)
    assert file.getvalue() == "item 2 of 3\n"
    file = io.StringIO()
    with progress(False, console=PlainConsole(file=file, width=200)) as report:
        report("items", 1, 3)
    assert file.getvalue() == ""


def test_a_terminal_gets_one_bar_that_goes():
    file = io.StringIO()
    with progress(False, console=PlainConsole(file=file, width=200, force_terminal=True)) as report:
        report("items", 0, 2)
        for label in ("encode", "verify", "encode", "verify"):
            report(label, 1, 1)
        report("items", 2, 2)
    assert "item 2 of 2" in file.getvalue()
    assert "encode 1 of 1" not in file.getvalue().splitlines()[-1]
