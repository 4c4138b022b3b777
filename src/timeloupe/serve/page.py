"""One self-contained HTML page of a run: no request leaves it, and it works from a file. Pure.

Everything that a model or file says travels as JSON inside a script element that is never run, with every ``<``
escaped; the page's script puts it on the page as text, never as markup. A content security policy in the page allows
only its own script and style, by their hashes, and pictures that it holds itself.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Sequence
from importlib import resources
from typing import Any

from timeloupe.serve.page_data import run_data
from timeloupe.serve.thumbnails import Gallery
from timeloupe.trajectory import Trajectory

_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


def render_page(
    trajectories: Sequence[Trajectory], gallery: Gallery | None = None, title: str = "run"
) -> str:
    """Return the page of these episodes as one HTML document.

    Args:
        trajectories: The episodes, in the order of the list.
        gallery: Pictures of their frames; ``None`` = none.
        title: Name of the run.
    """
    return fill(run_data(trajectories, gallery or Gallery(), title))


def fill(data: dict[str, Any]) -> str:
    """Return the page around its data."""
    style, script = static_text("page.css"), static_text("page.js")
    policy = [
        "default-src 'none'",
        "img-src data:",
        f"style-src '{source_hash(style)}'",
        f"script-src '{source_hash(script)}'",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    values = {
        "policy": "; ".join(policy),
        "title": html.escape(str(data["title"])),
        "style": style,
        "script": script,
        "data": script_safe_json(data),
    }
    # One pass: what is put in is never searched again, whatever it holds.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], static_text("page.html"))


def script_safe_json(data: Any) -> str:
    """Return strict ASCII JSON that cannot end or open an element: ``<``, ``>`` and ``&`` are escaped."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return re.sub("[<>&]", lambda match: _ESCAPES[match[0]], text)


def source_hash(text: str) -> str:
    """Return the hash by which a content security policy knows an inline script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def static_text(name: str) -> str:
    """Return a file of the page's package data."""
    return resources.files("timeloupe.serve").joinpath("static", name).read_text(encoding="utf-8")
