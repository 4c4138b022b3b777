"""The card of a run: how its numbers were made, so that others can make them again or see why theirs differ."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from timeloupe.environment.settings import EpisodeSettings
from timeloupe.eval.questions import Questions
from timeloupe.eval.scoreboard import OFFICIAL, Scoreboard, scripts_of
from timeloupe.eval.scripts.sources import source_of
from timeloupe.prompt.protocol import Protocol
from timeloupe.trajectory import StopReason, Trajectory

CARD = "card.json"

FRAME_TIMES = (
    "seconds from the first presented frame; a skim takes the centres of equal cells, a crop likewise within its "
    "segment; the frame displayed at a time is the last one that began"
)


def make_card(
    questions: Questions,
    protocol: Protocol,
    settings: EpisodeSettings,
    trajectories: Sequence[Trajectory],
    boards: Sequence[Scoreboard],
    *,
    system_prompt: str | None,
    policy: Mapping[str, Any],
    environment: Mapping[str, Any],
    seed: int,
    wall_seconds: float,
    mode: str,
    price: tuple[float, float] | None = None,
    servers: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Return the card, as JSON data.

    Args:
        questions: What was asked.
        protocol: How the model was spoken to.
        settings: What an episode may see and do.
        trajectories: All episodes.
        boards: Scores, one per repeat; none where there is no score.
        system_prompt: What replaced the protocol's, if anything.
        policy: What is known of the model and its server.
        environment: Versions, commit, machine (``runs.snapshot_environment``).
        seed: Root seed.
        wall_seconds: Time that the run took, all sessions together but those that were killed.
        mode: How the scores were asked for: ``strict``, ``official:SCRIPT``, ``all``, ...
        price: US dollars for a million prompt and completion tokens; ``None`` = not known.
        servers: What the servers of a served model said of themselves, the last one last.
    """
    prompt = prompt_facts(protocol, settings, system_prompt)
    versions = environment.get("packages", {})
    return {
        "benchmark": {
            "name": questions.benchmark.name, "title": questions.benchmark.title, "split": questions.benchmark.split,
            "rows": questions.num_rows, "asked": len(questions.rows), "sha256": questions.sha256,
            "missing_videos": len(questions.missing),
        },
        "model": dict(policy),
        "server": dict(servers[-1]) if servers else None,
        "earlier_servers": [dict(one) for one in servers[:-1]],
        "judge": None,
        "prompt": prompt,
        "frames": {
            "times": FRAME_TIMES, "decoder": f"PyAV {versions.get('av', 'of unknown version')}",
            **{key: value for key, value in settings.model_dump(mode="json").items() if _is_about_frames(key)},
        },
        "sampling": {
            "temperature": settings.temperature, "top_p": settings.top_p, "top_k": settings.top_k,
            "max_new_tokens": settings.max_new_tokens, "seed": seed,
            "repeats": 1 + max((one.rollout_index for one in trajectories), default=0),
        },
        "scorer": {
            "mode": mode,
            "scripts": {name: source_of(f"{OFFICIAL}:{name}") for name in scripts_of(questions.benchmark, mode)},
        },
        "environment": dict(environment),
        "episodes": {reason.value: sum(one.stop is reason for one in trajectories) for reason in StopReason},
        "faults": dict(Counter(fault_of(one) for one in trajectories if one.stop is StopReason.INFRASTRUCTURE)),
        "cost": cost(trajectories, wall_seconds, price),
        "scores": [
            {"repeat": number, "mode": table.mode, "figures": dict(table.figures), "unit": table.unit,
             "scored": table.num_scored, "total": table.num_total, "failures": dict(table.failures)}
            for number, board in enumerate(boards) for table in board.tables if table.error is None
        ],
    }  # fmt: skip


def _is_about_frames(key: str) -> bool:
    return key.startswith(
        ("skim_", "crop_", "min_pixels", "size_", "frame_size", "max_turns", "tools", "question_only")
    )


def prompt_facts(protocol: Protocol, settings: EpisodeSettings, system_prompt: str | None) -> dict[str, Any]:
    """Return the protocol's name, the system text in force, and a hash of all that the protocol says."""
    system = protocol.system_with_tool if settings.offers_tool else protocol.system_without_tool
    words = json.dumps(asdict(protocol) | {"system": system_prompt}, sort_keys=True, default=str)
    return {
        "protocol": protocol.name, "system": system if system_prompt is None else system_prompt,
        "hints": dict(protocol.hints), "sha256": hashlib.sha256(words.encode()).hexdigest(),
    }  # fmt: skip


def fault_of(trajectory: Trajectory) -> str:
    """Return what ended an episode that a machine's fault ended: ``policy``, ``video``, ``deadline``, ..."""
    return trajectory.problem.reason if trajectory.problem else "unknown"


def cost(
    trajectories: Sequence[Trajectory], wall_seconds: float, price: tuple[float, float] | None = None
) -> dict[str, Any]:
    """Return what the episodes cost: seconds, tokens as the model or server counted them, frames, crops, turns.

    ``None`` stands where a server did not count, or the price is not known. What a machine's fault took away is not in
    it: neither the turn that failed nor an attempt that was played again. A question costs as many episodes as it was
    asked times.
    """
    usages = [
        turn.generation.usage for one in trajectories for turn in one.turns if turn.generation.finish != "error"
    ]  # fmt: skip
    num_questions = max(len({one.example.id for one in trajectories}), 1)

    def total(values: Sequence[int | None]) -> int | None:
        return None if any(value is None for value in values) else sum(value or 0 for value in values)

    prompt = total([usage.prompt_tokens for usage in usages])
    completion = total([usage.completion_tokens for usage in usages])
    count = max(len(trajectories), 1)
    dollars = None
    if price is not None and prompt is not None and completion is not None:
        dollars = (price[0] * prompt + price[1] * completion) / 1e6
    return {
        "wall_seconds": round(wall_seconds, 3), "seconds_per_episode": round(wall_seconds / count, 4),
        "seconds_per_question": round(wall_seconds / num_questions, 4),
        "prompt_tokens": prompt, "completion_tokens": completion,
        "turns": sum(len(one.turns) for one in trajectories), "crops": sum(len(one.crops) for one in trajectories),
        "frames_decoded": sum(one.frames_decoded for one in trajectories),
        "frames_cached": sum(one.frames_cached for one in trajectories),
        "price": None if price is None else {"prompt": price[0], "completion": price[1]}, "dollars": dollars,
        "dollars_per_episode": None if dollars is None else dollars / count,
        "dollars_per_question": None if dollars is None else dollars / num_questions,
    }  # fmt: skip


def card_lines(card: Mapping[str, Any]) -> list[str]:
    """Return the card in a few lines for people."""
    frames, sampling, spent = card["frames"], card["sampling"], card["cost"]
    size = frames["frame_size_wh"]
    look = f"skim {frames['skim_frames']} frames at most, crops {frames['crop_max_frames']}"
    pixels = "x".join(map(str, size)) if size else f"up to {frames['skim_pixels']} pixels"
    tokens = "tokens not counted"
    if spent["prompt_tokens"] is not None:
        tokens = f"{spent['prompt_tokens']} + {spent['completion_tokens']} tokens"
    turns = f"{frames['max_turns']} turns at most" if frames["tools"] else "single pass"
    money = ""
    if spent["dollars"] is not None:
        money = f", ${spent['dollars']:.4g}, ${spent['dollars_per_question']:.3g} per question"
        if sampling["repeats"] > 1:
            money += f" of {sampling['repeats']} episodes"
    server = card.get("server") or {}
    served = f" on {server['name']} {server['version'] or ''}".rstrip() if server.get("name") else ""
    return [
        f"model   {card['model'].get('name')}{served}; prompt {card['prompt']['protocol']} "
        f"{card['prompt']['sha256'][:12]}; {turns}; {look}, {pixels}",
        f"rows    {card['benchmark']['asked']} of {card['benchmark']['rows']}, {card['benchmark']['sha256'][:12]}; "
        f"temperature {sampling['temperature']:g}, seed {sampling['seed']}, {sampling['repeats']} per question",
        f"cost    {spent['wall_seconds']:.1f} s, {tokens}, {spent['frames_decoded']} frames decoded, "
        f"{spent['crops']} crops{money}",
    ]  # fmt: skip
