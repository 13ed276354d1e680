"""Trying again where a server is busy: with growing pauses, or as long as it asks for, within reason."""

from __future__ import annotations

from typing import Any, Self

from urllib3 import BaseHTTPResponse, Retry
from urllib3.exceptions import InvalidHeader, MaxRetryError, ReadTimeoutError, ResponseError

__all__ = ["BUSY", "LONGEST_WAIT", "Patience", "Persistence"]

BUSY = (429, 502, 503, 504)
"""Statuses after which a request is made again."""
LONGEST_WAIT = 10.0
"""Seconds that a server may ask for (Retry-After); a longer wait is left to the user."""


class Patience(Retry):
    """How often a request is made again, for urllib3; the last answer is returned, not raised.

    Examples
    --------
    >>> patience = Patience.of(2)
    >>> patience.total, patience.is_retry("POST", 503), patience.is_retry("GET", 404)
    (2, True, False)
    """

    again_after_timeouts = False
    """Whether a request that had no answer in time is made again; one whose connection was cut is, once or more."""

    @classmethod
    def of(cls, times: int, statuses: tuple[int, ...] = BUSY) -> Self:
        """Patience for so many more tries."""
        return cls(
            total=times,
            connect=times if cls.again_after_timeouts else min(1, times),
            read=times if cls.again_after_timeouts else min(1, times),
            backoff_factor=0.2,
            backoff_max=LONGEST_WAIT,
            status_forcelist=statuses,
            allowed_methods=None,
            respect_retry_after_header=True,
            raise_on_status=False,
        )

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: BaseHTTPResponse | None = None,
        error: Exception | None = None,
        _pool: Any = None,
        _stacktrace: Any = None,
    ) -> Self:
        """Count a try; give up at once where the server is silent, or asks for a longer wait than is reasonable."""
        if isinstance(error, ReadTimeoutError) and not self.again_after_timeouts:
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


class Persistence(Patience):
    """Patience for requests that may be repeated, and should be: also where there is no answer in time."""

    again_after_timeouts = True
