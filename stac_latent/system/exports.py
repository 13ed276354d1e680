"""Names of a package that live in its modules, imported when they are first used (PEP 562), so that the package stays light."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

__all__ = ["lazy"]


def lazy(
    package: str, where: Mapping[str, Iterable[str]], *own: str
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """``__getattr__``, ``__dir__`` and ``__all__`` of a package.

    Type checkers read the same names in a block of imports for them; ``tests/test_light_import.py`` holds the two equal::

        if TYPE_CHECKING:
            from stac_latent.codec.bundle import save_bundle as save_bundle
        else:
            __getattr__, __dir__, __all__ = lazy(__name__, {"bundle": ["save_bundle"]})

    Parameters
    ----------
    package
        ``__name__`` of the package.
    where
        Its modules, named from the package on, and the names that each gives. A name that is also a module of the package
        will not do: importing the module would put it in the place of the name.
    own
        Names that the package defines itself.
    """
    module_of = {name: f"{package}.{module}" for module, names in where.items() for name in names}

    def get(name: str) -> Any:
        if name in module_of:
            return getattr(importlib.import_module(module_of[name]), name)
        raise AttributeError(
            f"module {package!r} has no attribute {name!r}", name=name, obj=sys.modules[package]
        )

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *module_of})

    return get, names, sorted((*module_of, *own))
