"""Where the package writes: names from documents, temporary names, files that appear whole or not at all, leftovers, the cache folder."""

from __future__ import annotations

import atexit
import errno
import glob
import itertools
import os
import platform
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from stac_latent.errors import CatalogError

__all__ = [
    "cache_folder",
    "clear_killed",
    "clear_parts",
    "files_below",
    "is_disk_full",
    "is_temporary",
    "left_by_killed",
    "placed",
    "put",
    "remove",
    "replacing",
    "replacing_folder",
    "temporary",
    "tree_size",
    "workplace",
    "write_whole",
    "writing",
]

_PROCESS = secrets.token_hex(2)
"""Tells this process from an earlier one of the same number, as the first of each container is."""
_COUNT = itertools.count()


def cache_folder() -> Path:
    """Folder of what is kept between runs: ``$STAC_LATENT_CACHE`` or ``~/.cache/stac-latent``."""
    return Path(os.environ.get("STAC_LATENT_CACHE") or Path.home() / ".cache" / "stac-latent")


def temporary(path: Path, state: str) -> Path:
    """Hidden name beside ``path`` that is used once; ``state`` is ``part`` (being written) or ``old`` (being replaced)."""
    return path.with_name(f".{path.name}.{_host()}.{os.getpid()}-{_PROCESS}{next(_COUNT)}.{state}")


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that appears whole or not at all: under a temporary name first, then renamed.

    Examples
    --------
    >>> write_whole(Path("a.json"), b"{}")
    >>> Path("a.json").read_bytes()
    b'{}'
    """
    with replacing(path, sweep=False) as part:
        part.write_bytes(data)


@contextmanager
def replacing(path: Path, *, parents: bool = False, sweep: bool = True) -> Iterator[Path]:
    """Temporary path beside ``path`` for a file, renamed to ``path`` when the block ends well, and removed otherwise.

    Parameters
    ----------
    path
        What is made.
    parents
        Make its folder where there is none.
    sweep
        Remove first what killed processes left of ``path``. Whoever writes many files into one folder leaves this to one
        :func:`clear_parts` of the folder.

    Examples
    --------
    >>> with replacing(Path("a.txt")) as part:
    ...     _ = part.write_text("whole")
    >>> Path("a.txt").read_text()
    'whole'
    """
    if parents:
        path.parent.mkdir(parents=True, exist_ok=True)
    if sweep:
        clear_killed(path)
    part = temporary(path, "part")
    try:
        yield part
        put(part, path)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Empty temporary folder beside ``path``, renamed to ``path`` when the block ends well, and removed otherwise.

    What was at ``path`` goes when the new folder is in place, and not before. What killed processes left is removed first.

    Examples
    --------
    >>> with replacing_folder(Path("bundle")) as part:
    ...     _ = (part / "codec.json").write_text("{}")
    >>> [p.name for p in Path("bundle").iterdir()]
    ['codec.json']
    """
    clear_killed(path)
    part = temporary(path, "part")
    part.mkdir(parents=True)
    try:
        yield part
        put(part, path)
    except BaseException:
        remove(part)
        # Threads of an interrupted writer may still make a chunk, and its folders, anew.
        atexit.register(remove, part)
        raise


@contextmanager
def workplace(path: Path) -> Iterator[Path]:
    """Folder beside ``path`` in which it is made, gone afterwards; those of killed processes are removed first.

    For whatever is more than one file, or is put into place under a lock; else :func:`replacing` is simpler.

    Examples
    --------
    >>> with workplace(Path("a.tif")) as folder:
    ...     _ = (folder / "a.tif").write_bytes(b"II")
    ...     _ = (folder / "a.tif").replace("a.tif")
    >>> Path("a.tif").read_bytes()
    b'II'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    clear_killed(path)
    work = temporary(path, "part")
    work.mkdir()
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def writing(path: Path, *others: type[Exception]) -> Iterator[None]:
    """Give what ends the writing of ``path``, a full disk or a folder of others, as an error that names it.

    Parameters
    ----------
    path
        What is made; under another name first.
    others
        What libraries raise for it besides OSError.

    Raises
    ------
    CatalogError
        With the system's reason.

    Examples
    --------
    >>> with writing(Path("a.tif")):
    ...     raise OSError(28, "No space left on device")
    Traceback (most recent call last):
    stac_latent.errors.CatalogError: could not write a.tif ([Errno 28] No space left on device); nothing half-written is kept; ...
    """
    caught: tuple[type[Exception], ...] = (OSError, *others)
    try:
        yield
    except caught as exc:
        raise CatalogError(
            f"could not write {path} ({exc.__cause__ or exc}); nothing half-written is kept; free some space, or choose another place"
        ) from exc


def put(part: Path, path: Path) -> None:
    """Rename a finished file or folder to its place; what was there goes when the new one is in place, and not before.

    Examples
    --------
    >>> Path("new").mkdir()
    >>> put(Path("new"), Path("cube.zarr"))
    >>> Path("cube.zarr").is_dir()
    True
    """
    if not part.is_dir():
        part.replace(path)  # refused where a folder is in its place
        return
    with placed(part, path):
        pass


@contextmanager
def placed(part: Path, path: Path) -> Iterator[None]:
    """Rename a finished file or folder to its place; what was there comes back if the block fails, and goes if it does not.

    Examples
    --------
    >>> Path("old.txt").write_text("old"), Path("new.txt").write_text("new")
    (3, 3)
    >>> with placed(Path("new.txt"), Path("old.txt")):
    ...     raise ValueError("not catalogued")
    Traceback (most recent call last):
    ValueError: not catalogued
    >>> Path("old.txt").read_text()
    'old'
    """
    old, before = temporary(path, "old"), os.path.lexists(path)
    try:
        if before:
            path.replace(old)
        part.replace(path)
        yield
    except BaseException:
        if os.path.lexists(old):
            remove(path)
            old.replace(path)
        elif not before:
            remove(path)
        raise
    remove(old)


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with all that it holds, as far as that is allowed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def clear_killed(path: Path) -> None:
    """Remove what was half-written of ``path``, and bring back the one that was being replaced.

    Only what a process of this machine left that no longer runs: others may still be writing.

    Examples
    --------
    >>> clear_killed(Path("catalogue/item/latent.zarr"))  # nothing there, nothing to do
    """
    for left, state in left_by_killed(path):
        if state == "old" and not path.exists():
            left.rename(path)
        else:
            remove(left)


def left_by_killed(path: Path) -> list[tuple[Path, str]]:
    """What killed processes left of ``path``, and its state, as :func:`temporary` has it."""
    found = sorted(path.parent.glob(f".{glob.escape(path.name)}.*"))
    states = [_state_of_killed(left, re.escape(path.name)) for left in found]
    return [(left, state) for left, state in zip(found, states, strict=True) if state is not None]


def clear_parts(folder: Path) -> None:
    """Remove what is half-written directly in ``folder``; whose, as in :func:`clear_killed`."""
    for left in folder.glob(".*.part"):
        if _state_of_killed(left, ".+") == "part":
            remove(left)


def files_below(root: Path) -> Iterator[Path]:
    """Files below a folder, also in folders that links lead to, each place once; without hidden ones: these are no data.

    Examples
    --------
    >>> list(files_below(Path("tables")))  # nothing there
    []
    """
    seen: set[Path] = set()
    for folder, names, files in os.walk(root, followlinks=True):
        place = Path(folder)
        if place.resolve() in seen:
            names.clear()
            continue
        seen.add(place.resolve())
        names[:] = sorted(n for n in names if not n.startswith("."))
        yield from (place / n for n in sorted(files) if not n.startswith(".") and (place / n).is_file())


def tree_size(folder: str | os.PathLike[str]) -> int:
    """Bytes of all files below a folder."""
    return sum(p.stat().st_size for p in Path(folder).rglob("*") if p.is_file())


def is_temporary(path: Path) -> bool:
    """Whether a name is one of :func:`temporary`, of any process and machine, or of a lock.

    Examples
    --------
    >>> is_temporary(temporary(Path("a.json"), "part")), is_temporary(Path(".hidden"))
    (True, False)
    """
    return re.fullmatch(r"\..+\.(part|old|lock)", path.name) is not None


def is_disk_full(exc: BaseException | None) -> bool:
    """Whether an error says that there is no room left for what is written: the disk or the quota is full."""
    return isinstance(exc, OSError) and exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _state_of_killed(left: Path, name: str) -> str | None:
    """State in a temporary name that a process of this machine left; None for any other, and where it still runs."""
    found = re.fullmatch(
        rf"\.{name}\.{re.escape(_host())}\.(\d+)(?:-([0-9a-f]{{4}})\d+)?\.(part|old)", left.name
    )
    if found is None:
        return None
    pid = int(found[1])
    earlier = pid == os.getpid() and found[2] != _PROCESS
    return found[3] if earlier or not _runs(pid) else None


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9-]", "-", platform.node())[:16] or "host"


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
