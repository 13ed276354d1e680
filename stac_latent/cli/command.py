"""How commands are read and described: help as it is written, and an output that may be named by ``--out`` everywhere."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from typer.core import TyperArgument, TyperCommand, TyperOption

__all__ = ["Command"]

_OUT = "--out"


class Command(TyperCommand):
    """A command whose help, and that of its options and arguments, says what the source says: square brackets are text.

    ``--out PATH`` does where the last argument is called OUT, as it does in the commands that write only when they are asked to.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.rich_markup_mode != "rich":
            return
        self.help = escape(self.help or "")
        for param in self.params:
            if isinstance(param, TyperOption | TyperArgument) and param.help:
                param.help = escape(param.help)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take ``--out PATH`` as the argument OUT, where there is one and no option of that name."""
        arguments = [p for p in self.params if isinstance(p, TyperArgument)]
        if arguments and arguments[-1].metavar == "OUT" and not any(_OUT in p.opts for p in self.params):
            args = _out_last(args)
        return super().parse_args(ctx, args)


def _out_last(args: list[str]) -> list[str]:
    """Arguments with the value of the first ``--out``, if there is one, as the last of them."""
    for i, word in enumerate(args):
        if word == "--":
            break
        if word == _OUT and i + 1 < len(args):
            return [*args[:i], *args[i + 2 :], args[i + 1]]
        if word.startswith(f"{_OUT}="):
            return [*args[:i], *args[i + 1 :], word.removeprefix(f"{_OUT}=")]
    return args
