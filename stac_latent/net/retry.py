"""Asking again where a server is busy: how often, after which answers, and with which pauses."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from urllib3 import BaseHTTPResponse, Retry
from urllib3.exceptions import InvalidHeader, MaxRetryError, ReadTimeoutError, ResponseError

from stac_latent.errors import RemoteError
from stac_latent.net.answers import BusyError

__all__ = ["BUSY", "LONGEST_WAIT", "Retries", "RetryPolicy"]

BUSY = (429, 502, 503, 504)
"""Statuses after which any request is made again."""
LONGEST_WAIT = 10.0
"""Seconds that a server may ask for (Retry-After)."""
_T = TypeVar("_T")


@dataclass(frozen=True)
class RetryPolicy:
    """When a request is made again, and how often; the same for functions and for sessions of libraries.

    Examples
    --------
    >>> policy = RetryPolicy(2)
    >>> policy.adapter().is_retry("POST", 503), policy.adapter().is_retry("GET", 404)
    (True, False)
    >>> policy.call(lambda: "answer")
    'answer'
    """

    times: int
    """Times that a request is made again."""
    statuses: tuple[int, ...] = BUSY
    """HTTP statuses after which it is."""
    after_timeouts: bool = False
    """Whether a request that had no answer in time is made again; one whose connection was cut is, once or more."""
    first_pause: float = 0.2
    """Seconds; each pause is a multiple of the one before."""

    def call(self, ask: Callable[[], _T]) -> _T:
        """Call a function again while it raises :class:`~stac_latent.net.answers.BusyError`; each pause is four times the one before.

        A server that asks for a longer pause (Retry-After) gets it, up to :data:`LONGEST_WAIT`.

        Raises
        ------
        RemoteError
            If the last try raises it too.
        """
        for attempt in range(self.times + 1):
            try:
                return ask()
            except BusyError as exc:
                if attempt == self.times:
                    raise RemoteError(f"{exc} (tried {self.times + 1} times)") from None
                pause = self.first_pause * 4**attempt * random.uniform(0.75, 1.25)  # noqa: S311 - spreads readers, keeps no secret
                pause = pause if exc.after is None else max(pause, min(exc.after, LONGEST_WAIT))
            time.sleep(pause)
        raise AssertionError

    def adapter(self) -> Retry:
        """The policy as urllib3 takes it, for sessions of requests and pystac-client; each pause is twice the one before.

        The last answer is returned, not raised. A server that asks for a longer wait than :data:`LONGEST_WAIT` is not asked again.
        """
        broken = self.times if self.after_timeouts else min(1, self.times)
        made = _Retry(
            total=self.times,
            connect=broken,
            read=broken,
            backoff_factor=self.first_pause,
            backoff_max=LONGEST_WAIT,
            status_forcelist=self.statuses,
            allowed_methods=None,
            respect_retry_after_header=True,
            raise_on_status=False,
        )
        made.after_timeouts = self.after_timeouts
        return made


class Retries:
    """The policies of a session; whoever asks servers has its own from here.

    Examples
    --------
    >>> Retries().reads.times
    3
    """

    def __init__(self) -> None:
        self.reads = RetryPolicy(3, (408, 425, *BUSY, 500), after_timeouts=True)
        """Of reading objects, or parts of them."""
        self.searches = RetryPolicy(2)
        """Of catalogues and STAC APIs that are read."""
        self.writes = RetryPolicy(5, (*BUSY, 500), after_timeouts=True)
        """Of STAC APIs that are written to."""


class _Retry(Retry):
    """Gives up at once where a server is silent, unless told otherwise, or asks for a longer wait than is reasonable."""

    after_timeouts = False

    def new(self, **changes: Any) -> Self:
        """The counts after a try."""
        made = super().new(**changes)
        made.after_timeouts = self.after_timeouts
        return made

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: BaseHTTPResponse | None = None,
        error: Exception | None = None,
        _pool: Any = None,
        _stacktrace: Any = None,
    ) -> Self:
        """Count a try, or give up."""
        if isinstance(error, ReadTimeoutError) and not self.after_timeouts:
            raise error
        if response is not None and (self._wait(response) or 0) > LONGEST_WAIT:
            raise MaxRetryError(_pool, url or "", ResponseError("the server asks for a long wait"))
        return super().increment(method, url, response, error, _pool, _stacktrace)

    def _wait(self, response: BaseHTTPResponse) -> float | None:
        """Seconds that a server asks to wait; None where it does not, or not in a form that is known."""
        try:
            return self.get_retry_after(response)
        except InvalidHeader:
            return None
