"""Where the package writes: temporary names, files that appear whole or not at all, leftovers, the cache folder."""

from __future__ import annotations

import os
import platform
import re
import shutil
from pathlib import Path

__all__ = ["cache_folder", "clear_killed", "clear_parts", "temporary", "write_whole"]


def cache_folder() -> Path:
    """Folder of what is kept between runs: ``$STAC_LATENT_CACHE`` or ``~/.cache/stac-latent``."""
    return Path(os.environ.get("STAC_LATENT_CACHE") or Path.home() / ".cache" / "stac-latent")


def temporary(path: Path, state: str) -> Path:
    """Hidden name beside ``path`` for this process; ``state`` is ``part`` (being written) or ``old`` (being replaced)."""
    return path.with_name(f".{path.name}.{_host()}.{os.getpid()}.{state}")


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that appears whole or not at all: under a temporary name first, then renamed.

    Examples
    --------
    >>> write_whole(Path("a.json"), b"{}")
    >>> Path("a.json").read_bytes()
    b'{}'
    """
    part = temporary(path, "part")
    try:
        part.write_bytes(data)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def clear_killed(path: Path) -> None:
    """Remove half-written stores of ``path``, and bring back the one that was being replaced.

    Only what a process of this machine left that no longer runs: others may still be writing.

    Examples
    --------
    >>> clear_killed(Path("catalogue/item/latent.zarr"))  # nothing there, nothing to do
    """
    for left in sorted(path.parent.glob(f".{path.name}.*")):
        state = _state_of_killed(left, re.escape(path.name))
        if state == "old" and not path.exists():
            left.rename(path)
        elif state is not None:
            shutil.rmtree(left, ignore_errors=True)


def clear_parts(folder: Path) -> None:
    """Remove half-written files directly in ``folder``; whose, as in :func:`clear_killed`."""
    for left in folder.glob(".*.part"):
        if _state_of_killed(left, ".+") == "part" and left.is_file():
            left.unlink(missing_ok=True)


def _state_of_killed(left: Path, name: str) -> str | None:
    """State in a temporary name that a process of this machine left; None for any other, and where it still runs."""
    found = re.fullmatch(rf"\.{name}\.{re.escape(_host())}\.(\d+)\.(part|old)", left.name)
    return None if found is None or _runs(int(found[1])) else found[2]


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
