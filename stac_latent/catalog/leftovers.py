"""Temporary names of stores, and what becomes of those that a killed process left behind."""

from __future__ import annotations

import os
import platform
import re
import shutil
from pathlib import Path

__all__ = ["clear_killed", "temporary"]


def temporary(path: Path, state: str) -> Path:
    """Hidden name beside ``path`` for this process; ``state`` is ``part`` (being written) or ``old`` (being replaced)."""
    return path.with_name(f".{path.name}.{_host()}.{os.getpid()}.{state}")


def clear_killed(path: Path) -> None:
    """Remove half-written stores of ``path``, and bring back the one that was being replaced.

    Only what a process of this machine left that no longer runs: others may still be writing.

    Examples
    --------
    >>> clear_killed(Path("catalogue/item/latent.zarr"))  # nothing there, nothing to do
    """
    name = re.compile(re.escape(f".{path.name}.{_host()}.") + r"(\d+)\.(part|old)$")
    for left in sorted(path.parent.glob(f".{path.name}.*")):
        found = name.match(left.name)
        if found is None or _runs(int(found[1])):
            continue
        if found[2] == "old" and not path.exists():
            left.rename(path)
        else:
            shutil.rmtree(left, ignore_errors=True)


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9-]", "-", platform.node()) or "host"


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
