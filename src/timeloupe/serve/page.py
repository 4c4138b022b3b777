"""The page that shows runs: one HTML document with its own script and style. Pure.

It comes in two forms. An exported page holds its data and asks for nothing; a served page asks the server that sent
it. Everything that a model or file says travels as JSON, in the exported page inside a script element that is never run
with every ``<`` escaped; the page's script puts it on the page as text, never as markup. A content security policy
allows only the page's own script and style, by their hashes.
"""

from __future__ import annotations

import base64
import functools
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

# One script: each file is a room of the page, and uses those before it. The first says where the data comes from.
_ROOMS = ("elements", "timeline", "stage", "turns", "episode", "compare", "address", "list", "keys", "start")


def render_page(
    trajectories: Sequence[Trajectory], gallery: Gallery | None = None, title: str = "run"
) -> str:
    """Return the page of these episodes as one HTML document that holds everything itself.

    Args:
        trajectories: The episodes, in the order of the list.
        gallery: Pictures of their frames; ``None`` = none.
        title: Name of the run.
    """
    return fill([run_data(trajectories, gallery or Gallery(), title)])


def fill(runs: Sequence[dict[str, Any]]) -> str:
    """Return the page around the data of one or two runs."""
    return _document(
        served=False, data={"runs": list(runs)}, title=" and ".join(run["title"] for run in runs)
    )


@functools.cache
def served_page() -> str:
    """Return the page that asks the server it came from."""
    return _document(served=True, data=None, title="runs")


def content_policy(*, served: bool) -> str:
    """Return what the page may load and run."""
    rules = ["default-src 'none'", f"style-src '{source_hash(static_text('page.css'))}'"]
    rules += [
        f"script-src '{source_hash(script_text(served=served))}'",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    rules += ["img-src data:", *(["media-src 'self'", "connect-src 'self'"] if served else [])]
    return "; ".join(rules)


@functools.cache
def script_text(*, served: bool) -> str:
    """Return the page's script."""
    rooms = ["server" if served else "embedded", *_ROOMS]
    return "\n".join(['"use strict";', *(static_text(f"{room}.js") for room in rooms)])


def _document(*, served: bool, data: Any, title: str) -> str:
    values = {
        "policy": content_policy(served=served),
        "title": html.escape(title),
        "style": static_text("page.css"),
        "script": script_text(served=served),
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


@functools.cache
def static_text(name: str) -> str:
    """Return a file of the page's package data."""
    return resources.files("timeloupe.serve").joinpath("static", name).read_text(encoding="utf-8")
