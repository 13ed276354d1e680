"""One HTML file out of a template, scripts, a style sheet and data: nothing in it asks for anything else.

What comes from catalogues is only in the data, deflated and in base64, which holds no character that HTML knows. The
scripts put it on the page as text. A policy in the page allows its own script and style by their digests and no
connection, so that what should slip through would still not run.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import zlib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

__all__ = ["SCRIPTS", "page"]

SCRIPTS = ("data.js", "view.js", "draw.js", "look.js", "similar.js", "main.js")
"""In the order in which they run, as one script."""


def page(title: str, data: Mapping[str, Any]) -> bytes:
    """The page as UTF-8.

    Parameters
    ----------
    title
        Plain text.
    data
        A JSON object: no NaN.

    Examples
    --------
    >>> b"<title>a &lt;b&gt;</title>" in page("a <b>", {})
    True
    """
    folder = files("stac_latent.page") / "static"
    style = (folder / "page.css").read_text(encoding="utf-8")
    bodies = [(folder / name).read_text(encoding="utf-8") for name in SCRIPTS]
    script = '"use strict";\n(() => {\n' + "\n".join(bodies) + "\n})();\n"
    land = json.loads((folder / "land.json").read_text(encoding="utf-8"))
    document = json.dumps({**data, "land": land}, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    parts = {
        "title": html.escape(title),
        "policy": f"default-src 'none'; img-src data: blob:; style-src {_digest(style)}; script-src {_digest(script)}; "
        "base-uri 'none'; form-action 'none'",
        "style": style,
        "script": script,
        "data": base64.b64encode(zlib.compress(document.encode("ascii"), 9)).decode("ascii"),
    }
    template = (folder / "page.html").read_text(encoding="utf-8")
    text = re.sub(r"\{\{ (\w+) \}\}", lambda match: parts[match[1]], template)
    return text.encode("utf-8", "replace")


def _digest(text: str) -> str:
    """Source expression of a Content-Security-Policy for an inline element with this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"
