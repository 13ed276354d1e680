"""Help that is printed as it is written: square brackets in it are text, not markup."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from typer.core import TyperArgument, TyperCommand, TyperOption

__all__ = ["PlainHelp"]


class PlainHelp(TyperCommand):
    """A command whose help, and that of its options and arguments, says what the source says."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.rich_markup_mode != "rich":
            return
        self.help = escape(self.help or "")
        for param in self.params:
            if isinstance(param, TyperOption | TyperArgument) and param.help:
                param.help = escape(param.help)
