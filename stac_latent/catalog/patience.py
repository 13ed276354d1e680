"""Trying again where a server is busy: with growing pauses, or as long as it asks for, within reason."""

from __future__ import annotations

from typing import Any, Self

from urllib3 import BaseHTTPResponse, Retry
from urllib3.exceptions import InvalidHeader, MaxRetryError, ResponseError

__all__ = ["BUSY", "LONGEST_WAIT", "Patience"]

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

    @classmethod
    def of(cls, times: int, *, unanswered: bool = False, statuses: tuple[int, ...] = BUSY) -> Self:
        """Patience for so many more tries; ``unanswered``: also where a request that may be repeated had no answer."""
        return cls(
            total=times,
            connect=times if unanswered else 0,
            read=times if unanswered else 0,
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
        *args: Any,
        **kwargs: Any,
    ) -> Self:
        """Count a try; give up at once where the server asks for a longer wait than is reasonable."""
        if response is not None and (self._wait(response) or 0) > LONGEST_WAIT:
            pool: Any = kwargs.get("_pool")
            raise MaxRetryError(pool, url or "", ResponseError("the server asks for a long wait"))
        return super().increment(method, url, response, *args, **kwargs)

    def _wait(self, response: BaseHTTPResponse) -> float | None:
        """Seconds that a server asks to wait; None where it does not, or not in a form that is known."""
        try:
            return self.get_retry_after(response)
        except InvalidHeader:
            return None
