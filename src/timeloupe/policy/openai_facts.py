"""What a server says of itself, for a run's card, and whether it is there. Nothing here fails: what is not said is
``None``."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import openai

from timeloupe.policy.openai_errors import Scrubber, parse_json
from timeloupe.policy.openai_http import http_package, make_client

FACTS_SECONDS = 10.0
"""How long a server has to say who it is."""

MAX_TEXT = 200
AWAY = (502, 503, 504, 521, 522, 523, 530)
"""What a gateway says for a server that is down or still loading its model; the last four are Cloudflare's."""

_OF_MODEL = ("id", "root", "revision", "owned_by", "max_model_len")


async def server_facts(
    reach: Mapping[str, Any], model: str | None, scrub: Scrubber, seconds: float = FACTS_SECONDS
) -> dict[str, Any]:
    """Return ``name`` and ``version`` of a server, and ``model``: what its list says of the one that is asked.

    vLLM and those that follow it have ``/version`` beside ``/v1``; else the header ``Server`` stands for the name, else
    who owns the model.

    Args:
        reach: The arguments of ``make_client``.
        model: The model that is asked; ``None`` = the only one there.
        scrub: Takes secrets out.
        seconds: For all of it.
    """
    found: dict[str, Any] = {"name": None, "version": None, "model": None}
    limits = {"max_retries": 0, "timeout_seconds": min(seconds, reach["timeout_seconds"])}
    try:
        async with asyncio.timeout(seconds), make_client(**{**reach, **limits}) as client:
            header, listed = await _get(client, f"{reach['url']}/models", scrub)
            rows = listed.get("data") if isinstance(listed, dict) else None
            rows = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
            named = [row for row in rows if row.get("id") == model] or (rows if len(rows) == 1 else [])
            if named:
                found["model"] = {key: _short(named[0].get(key)) for key in _OF_MODEL}
            owner = found["model"]["owned_by"] if found["model"] else None
            found["name"] = _short(header) or owner
            parts = urlsplit(reach["url"])
            root = parts.path.rstrip("/").removesuffix("/v1")
            _, version = await _get(client, urlunsplit(parts._replace(path=f"{root}/version")), scrub)
            if isinstance(version, dict) and version.get("version"):
                found["version"] = _short(version["version"])
                found["name"] = owner or found["name"]
    except (TimeoutError, openai.OpenAIError):
        pass  # a card may lack them; whether the server plays is for the episodes to say
    return found


async def is_there(reach: Mapping[str, Any], seconds: float = FACTS_SECONDS) -> bool:
    """Return whether a server answers: with anything but a status of ``AWAY``.

    Args:
        reach: The arguments of ``make_client``.
        seconds: How long it has.
    """
    limits = {"max_retries": 0, "timeout_seconds": min(seconds, reach["timeout_seconds"])}
    try:
        async with asyncio.timeout(seconds), make_client(**{**reach, **limits}) as client:
            await client.get(f"{reach['url']}/models", cast_to=http_package.Response)
    except openai.APIStatusError as error:
        return error.status_code not in AWAY
    except (TimeoutError, openai.OpenAIError):
        return False
    return True


async def _get(client: openai.AsyncOpenAI, url: str, scrub: Scrubber) -> tuple[str | None, Any]:
    """Return the header ``Server`` and the JSON of an address; ``None`` for what is not there."""
    try:
        answer = await client.get(url, cast_to=http_package.Response)
        return answer.headers.get("server"), parse_json(answer.text, scrub)
    except openai.APIStatusError as error:
        return error.response.headers.get("server"), None
    except ValueError:
        return None, None


def _short(value: Any) -> Any:
    """Return a text cut to ``MAX_TEXT`` characters, a number as it is, and ``None`` for all else."""
    if isinstance(value, str) and value:
        return value[:MAX_TEXT]
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
