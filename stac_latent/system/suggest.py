"""Names that nobody knows: which known one may have been meant, and options of a verb that does not have them."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Collection, Iterable
from functools import wraps
from typing import ParamSpec, TypeVar

from stac_latent.errors import OptionError

__all__ = ["did_you_mean", "known_options", "refuse_unknown"]

P = ParamSpec("P")
R = TypeVar("R")


def did_you_mean(name: str, known: Iterable[str], *, numbered: bool = True) -> str:
    """``" (did you mean 'psnr'?)"`` for the known name that is nearest; empty where none is near.

    Parameters
    ----------
    name
        What was asked for.
    known
        What there is.
    numbered
        Whether names that differ by a number alone mean other things, as those of bands do.

    Examples
    --------
    >>> did_you_mean("pnsr", ["psnr", "step"])
    " (did you mean 'psnr'?)"
    >>> did_you_mean("b04", ["B04"])
    " (did you mean 'B04'?)"
    >>> did_you_mean("xyz", ["psnr", "step"]), did_you_mean("B08", ["B04"])
    ('', '')
    >>> did_you_mean("cloud", ["platform", "eo:cloud_cover"])
    " (did you mean 'eo:cloud_cover'?)"
    >>> did_you_mean("cloud", ["proj:code"]), did_you_mean("s2-10m-5b", ["s2-10m-embed", "s2-10m-4b"], numbered=False)
    ('', " (did you mean 's2-10m-4b'?)")
    """
    meant = str(name).lower()
    names = [str(k) for k in known if not (numbered and _other_number(meant, str(k)))]
    whole = {n.lower(): n for n in reversed(names)}
    short = {n.lower().rpartition(":")[2]: n for n in reversed(names)}  # of fields of extensions
    for word, words in ((meant, whole), (meant.rpartition(":")[2], short)):
        near = [w for w in words if len(word) > 3 and (word in w.split("_") or w.startswith(word))]
        near += difflib.get_close_matches(word, words, 1, 0.66 if len(word) < 4 else 0.7)
        if near:
            return f" (did you mean {words[near[0]]!r}?)"
    return ""


def _other_number(name: str, known: str) -> bool:
    """Whether two names differ by a number alone: band 8 is no slip of the pen for band 4."""
    letters = [re.sub(r"\d", "", n.lower()) for n in (name, known)]
    numbers = [[int(d) for d in re.findall(r"\d+", n)] for n in (name, known)]
    return letters[0] == letters[1] and numbers[0] != numbers[1]


def refuse_unknown(verb: str, given: Iterable[str], known: Collection[str]) -> None:
    """Refuse options that a verb does not have.

    Raises
    ------
    OptionError
        If there are any; the message names each, the nearest known one, and all that are known.
    """
    unknown = [name for name in given if name not in known]
    if unknown:
        named = ", ".join(f"{name!r}{did_you_mean(name, known)}" for name in unknown)
        raise OptionError(f"{verb} has no option {named}; it takes {', '.join(known) or 'none'}")


def known_options(*more: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator of a verb: arguments that it does not take are refused in words, not by a ``TypeError`` of Python's.

    Parameters
    ----------
    *more
        What the verb takes as ``**options`` beside the arguments that it names.

    Examples
    --------
    >>> @known_options("psnr", "step")
    ... def code(item, **target): ...
    >>> code(7, pnsr=40)
    Traceback (most recent call last):
    stac_latent.errors.OptionError: code() has no option 'pnsr' (did you mean 'psnr'?); it takes item, psnr, step
    """

    def decorate(verb: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(verb)
        named = [n for n, p in signature.parameters.items() if n != "self" and p.kind is not p.VAR_KEYWORD]

        @wraps(verb)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            refuse_unknown(f"{verb.__name__}()", kwargs, (*named, *more))
            try:
                signature.bind(*args, **kwargs)
            except TypeError as exc:
                raise OptionError(
                    f"{verb.__name__}(): {exc}; it takes {', '.join((*named, *more))}"
                ) from None
            return verb(*args, **kwargs)

        return checked

    return decorate
