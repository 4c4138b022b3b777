"""``timeloupe eval --samples N --vote``: several episodes per question become one answer, with what that costs."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from timeloupe.errors import ConfigError, boundary

if TYPE_CHECKING:
    from timeloupe.cli.eval_session import Session
    from timeloupe.eval.relevance import Relevance
    from timeloupe.eval.scaling import Gains, Voted
    from timeloupe.eval.scoreboard import Scoreboard
    from timeloupe.policy.base import Policy
    from timeloupe.trajectory import Trajectory

SCORED_AT_ONCE = 16
"""Replies whose evidence is scored before it is written down."""


@dataclass(frozen=True)
class Outcome:
    """A vote over a run.

    Attributes:
        board: Scores of the voted answers; ``None`` where the scorer was lost too often.
        facts: All that is known of the vote, as JSON data.
        lines: The same in words.
    """

    board: Scoreboard | None
    facts: dict[str, Any]
    lines: list[str]


def settle_flags(flags: dict[str, Any]) -> None:
    """Make ``--samples`` the number of episodes per question.

    Raises:
        ConfigError: Flags that do not go together.
    """
    from timeloupe.eval.scaling import EVIDENCE, MAJORITY, VOTES

    samples = flags["samples"]
    if samples == 1:
        for key in ("vote", "scorer_base_url", "scorer_model"):
            if flags[key] is not None:
                raise ConfigError(
                    f"--{key.replace('_', '-')} needs --samples, the number of votes, such as 8"
                )
        return
    if flags["repeats"] not in (1, samples):
        raise ConfigError(
            f"--repeats {flags['repeats']} does not go with --samples {samples}: samples of a question become one "
            "answer, repeats are scored one by one; to repeat a vote give another --seed and --run"
        )
    flags["repeats"] = samples
    flags["vote"] = flags["vote"] or MAJORITY
    if flags["vote"] not in VOTES:
        raise boundary("--vote", flags["vote"], VOTES)
    if flags["vote"] != EVIDENCE and (flags["scorer_base_url"] or flags["scorer_model"]):
        raise ConfigError(
            f"--vote {flags['vote']} asks no scorer: leave --scorer-base-url and --scorer-model out"
        )


def check_temperature(flags: dict[str, Any], temperature: float) -> None:
    """Do nothing unless samples would all be the same.

    Raises:
        ConfigError: They would.
    """
    if flags["samples"] > 1 and temperature == 0:
        raise ConfigError(
            f"--samples {flags['samples']} at temperature 0 gives the same reply {flags['samples']} times: say how to "
            "sample, such as --temperature 1"
        )


def hold_vote(session: Session, trajectories: Sequence[Trajectory]) -> Outcome:
    """Return what the vote that the flags ask for makes of all episodes.

    Raises:
        ConfigError: It weighs evidence, and no reply points at any, or the scorer scores none.
    """
    from timeloupe.eval import scaling
    from timeloupe.eval.card import cost
    from timeloupe.eval.predictions import Loaded
    from timeloupe.eval.relevance import evidence_weights, scorer_cost
    from timeloupe.eval.scoreboard import score

    flags, questions = session.flags, session.questions
    kind = flags["vote"]
    facts: dict[str, Any] = {"vote": kind, "samples": flags["samples"]}
    rows: list[Relevance] = []
    if kind != scaling.MAJORITY:
        facts["replies_without_evidence"] = scaling.check_evidence(trajectories, kind)
    if kind == scaling.EVIDENCE:
        rows = _relevance(session, trajectories, facts)
        lost = [row for row in rows if row.fault]
        if len(lost) > flags["fail_on_error"] * len(rows):
            for row in lost[:3]:
                session.console.print(f"{row.id}: {row.fault}", style="red", markup=False, soft_wrap=True)
            said = f"the scorer was lost for {len(lost)} of {len(rows)} replies: no vote"
            return Outcome(None, facts, [f"{said}; mend the cause and go on with --resume"])
    known = {row.key: row for row in rows if not row.fault}
    weights: dict[str, Callable[[Sequence[Trajectory]], Sequence[float]]] = {
        scaling.MAJORITY: scaling.equal_weights,
        scaling.SELF: scaling.self_weights,
        scaling.EVIDENCE: functools.partial(evidence_weights, known=known),
    }
    weigh = weights[kind]
    voted = scaling.vote(questions.rows, scaling.by_question(trajectories), weigh)
    loaded = Loaded(dict(voted.by_id), f"the votes of {flags['samples']} samples, {kind}")
    board = score(questions.benchmark, questions.rows, loaded, flags["mode"])
    found = scaling.gains(questions.benchmark, questions.rows, trajectories, voted)
    facts |= voted.counts() | {"tasks": scaling.facts(found)}
    facts["cost"] = {
        "samples": cost(trajectories, session.seconds(), flags["price"]),
        "questions": len(questions.rows),
    }
    if kind == scaling.EVIDENCE:
        facts["cost"]["scorer"] = scorer_cost(rows)
    return Outcome(board, facts, _lines(facts, found, voted))


def tell_vote(outcome: Outcome) -> None:
    """Print a vote: the scores of the voted answers, and what single samples have."""
    from timeloupe.cli.score import show

    if outcome.board is not None:
        show(outcome.board, False)
    for line in outcome.lines:
        typer.echo(line)


def _relevance(
    session: Session, trajectories: Sequence[Trajectory], facts: dict[str, Any]
) -> list[Relevance]:
    """What the scorer says of every answered episode; kept in the run."""
    from timeloupe.cli.policies import policy_facts
    from timeloupe.eval.relevance import SCORES, Scorer, mend, read_rows
    from timeloupe.runs import append_records
    from timeloupe.video.cache import FrameCache

    policy = _scorer(session)
    known_facts = {key: value for key, value in policy_facts(policy).items() if key != "base_url"}
    key = json.dumps(["relevance", 1, known_facts, session.protocol.box_scale], sort_keys=True, default=str)
    scorer = Scorer(
        hashlib.sha256(key.encode()).hexdigest()[:16],
        policy,
        session.protocol.box_scale,
        FrameCache(256 * 2**20),
    )
    path = session.folder / SCORES
    mend(path, scorer.name)
    done = read_rows(path, scorer.name)
    answered = [one for one in trajectories if one.answer is not None]
    left = [one for one in answered if (one.example.id, one.rollout_index) not in done]
    session.console.print(f"{len(left)} of {len(answered)} replies to score with {policy.name}", markup=False)
    found = dict(done)
    for at in range(0, len(left), SCORED_AT_ONCE):
        rows = scorer.score(left[at : at + SCORED_AT_ONCE])
        append_records(path, rows)
        found |= {row.key: row for row in rows}
    rows = [found[one.example.id, one.rollout_index] for one in answered]
    given = [one for row in rows for one in row.scores]
    facts |= {"scorer": policy.name, "crops_scored": len(given), "crops_without_score": given.count(None)}
    if given and all(one is None for one in given):
        raise ConfigError(
            f"--vote evidence: {policy.name!r} gives none of {len(given)} crops a score of 0, 1 or 2, so it cannot be "
            "the scorer; name one that can with --scorer-base-url and --scorer-model, or take --vote self"
        )
    return rows


def _scorer(session: Session) -> Policy:
    flags = session.flags
    if flags["scorer_base_url"] is None:
        if flags["scorer_model"] is not None and session.kind != "openai":
            raise ConfigError("--scorer-model names a served model and needs --scorer-base-url")
        if flags["scorer_model"] is None:
            return session.policy.policy
    from timeloupe.cli.policies import POLICIES, PolicyFlags

    other = PolicyFlags(
        base_url=flags["scorer_base_url"] or flags["base_url"], model=flags["scorer_model"],
        timeout=flags["timeout"], image_format=flags["image_format"], max_request=flags["max_request"],
        api_key_env=flags["api_key_env"] if flags["scorer_base_url"] is None else None,
    )  # fmt: skip
    return POLICIES["openai"](other).policy


def _lines(facts: dict[str, Any], found: dict[str, Gains], voted: Voted) -> list[str]:
    said = [
        f"{facts['vote']} vote of {facts['samples']} samples per question, strict, 95 % intervals by video"
    ]
    said.append(
        f"  {'':<16} {'single sample':<28} {'vote':<28} {'vote - single':<28} best of {facts['samples']}"
    )
    for task, one in found.items():
        cells = [_span(interval) for interval in (one.single, one.voted, one.gain, one.best)]
        said.append(f"  {task:<16} {cells[0]:<28} {cells[1]:<28} {cells[2]:<28} {cells[3]}")
    counts = {key: value for key, value in voted.counts().items() if value}
    for key in ("replies_without_evidence", "crops_without_score"):
        if facts.get(key):
            counts[key] = facts[key]
    if counts:
        said.append("  " + ", ".join(f"{value} {key.replace('_', ' ')}" for key, value in counts.items()))
    spent, questions = facts["cost"]["samples"], max(facts["cost"]["questions"], 1)
    said.append(
        f"  cost per question: {_cost(spent, questions, spent['wall_seconds'], spent['frames_decoded'])}; "
        f"a single sample has 1/{facts['samples']} of it"
    )
    scorer = facts["cost"].get("scorer")
    if scorer:
        said.append(f"  and of the scorer: {_cost(scorer, questions, scorer['seconds'], scorer['frames'])}")
    return said


def _cost(spent: dict[str, Any], questions: int, seconds: float, frames: int) -> str:
    tokens = "tokens not counted"
    if spent["prompt_tokens"] is not None and spent["completion_tokens"] is not None:
        tokens = (
            f"{spent['prompt_tokens'] / questions:.0f} + {spent['completion_tokens'] / questions:.0f} tokens"
        )
    return f"{tokens}, {seconds / questions:.2f} s, {frames / questions:.1f} frames"


def _span(interval: Any) -> str:
    if interval.mean is None:
        return "-"
    if interval.low is None:
        return f"{interval.mean:.3f}"
    return f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
