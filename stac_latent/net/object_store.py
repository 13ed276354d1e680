"""Object stores through obstore: parts of objects, with the settings of the environment."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from stac_latent.errors import RemoteError, without_secrets
from stac_latent.net.answers import WHOLE, Answer, Part, State, request_timeout, unpacked
from stac_latent.net.retry import Retries
from stac_latent.net.servers import CONNECT
from stac_latent.system.links import shown
from stac_latent.system.session import session

__all__ = ["from_store", "listed", "object_store", "state_in_store"]


@lru_cache(maxsize=64)
def _store(root: str, pid: int, wait: float, times: int) -> Any:  # noqa: ARG001 - a forked child makes its own
    from obstore.store import from_url

    client: dict[str, Any] = {"timeout": f"{wait}s", "connect_timeout": f"{CONNECT}s"}
    if os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://"):
        client["allow_http"] = True
    options: dict[str, Any] = {"client_options": client, "retry_config": {"max_retries": times}}
    try:
        return from_url(root, **options)
    except Exception as exc:  # noqa: BLE001 - obstore and pyo3 raise many
        raise RemoteError(f"{root} cannot be opened: {without_secrets(str(exc))[:300]}") from None


def object_store(href: str) -> tuple[Any, str]:
    """Store of an address, as obstore makes it with the settings of the environment, and the path within it."""
    url = urlsplit(href, allow_fragments=False)  # keys may have a '#'
    scheme = {"gcs": "gs", "s3a": "s3"}.get(url.scheme.lower(), url.scheme.lower())
    times = session().of(Retries).reads.times
    return _store(f"{scheme}://{url.netloc}", os.getpid(), request_timeout(), times), url.path.lstrip("/")


def state_in_store(href: str) -> State | None:
    """As :func:`~stac_latent.net.servers.state_on_server`."""
    from obstore import exceptions as failed

    store, path = object_store(href)
    try:
        found = store.head(path)
    except (FileNotFoundError, failed.NotFoundError):
        return None
    except (OSError, ValueError, failed.BaseError) as exc:
        raise _refused(href, exc) from None
    return State(int(found["size"]), found.get("e_tag") or "")


def from_store(href: str, part: Part, limit: int, tag: str) -> Answer | None:
    """As :func:`~stac_latent.net.servers.from_server`."""
    from obstore import exceptions as failed

    store, path = object_store(href)
    start, stop = part
    options: dict[str, Any] = {"if_none_match": tag} if tag and not tag.startswith("~") else {}
    if part != WHOLE:
        options["range"] = (
            {"suffix": -start} if start < 0 else {"offset": start} if stop is None else (start, stop)
        )
    try:
        found = store.get(path, options=options)
        size = found.range[1] - found.range[0]
        if size > limit:
            raise RemoteError(f"{shown(href)} is larger than the {limit} bytes that are read of such a file")
        encoding = str(found.attributes.get("Content-Encoding", "")).lower().replace("identity", "")
        if encoding and part != WHOLE:
            raise RemoteError(
                f"{shown(href)} is stored packed (Content-Encoding: {encoding}), and parts of it cannot be read; store it as it is"
            )
        return Answer(unpacked(bytes(found.bytes()), encoding, href, limit), found.meta.get("e_tag") or "")
    except (FileNotFoundError, failed.NotFoundError):
        return None
    except failed.NotModifiedError:
        return Answer(b"", same=True)
    except (OSError, failed.BaseError) as exc:
        raise _refused(href, exc) from None


def listed(store: Any, prefix: str) -> list[str]:
    """Names directly below a prefix."""
    from obstore import exceptions as failed

    try:
        found = store.list_with_delimiter(prefix or None)
    except (OSError, ValueError, failed.BaseError) as exc:
        raise _refused(prefix, exc) from None
    paths = [*found["common_prefixes"], *(o["path"] for o in found["objects"])]
    return sorted(str(p).rstrip("/").rsplit("/", 1)[-1] for p in paths)


def _refused(href: str, exc: Exception) -> RemoteError:
    denied = isinstance(exc, PermissionError) or type(exc).__name__ in (
        "PermissionDeniedError",
        "UnauthenticatedError",
    )
    text = " ".join(without_secrets(str(exc).partition("Debug source")[0]).split())[:300]
    way = (
        "give credentials as the environment variables of its provider (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION; "
        "AWS_SKIP_SIGNATURE=true for a public bucket)"
        if denied
        else f"it was tried {session().of(Retries).reads.times + 1} times: check the address and the network (AWS_ENDPOINT_URL, AWS_REGION), or try again later"
    )
    return RemoteError(f"cannot read {shown(href)}: {text}; {way}")
