"""Several replies to one question become one: what test-time scaling gives, and what it costs.

A vote chooses one of the replies, so the voted answer is scored like any other. What a reply says is read as the strict
mode reads it. Letters and short answers: the answer with the largest sum of weights wins, and of its replies the
heaviest speaks for it; ties go to the reply that came first. Segments: the reply whose segments overlap most with all
others, the mean tIoU weighed (a medoid); nothing is averaged, so no boundary is answered that no reply names. A reply
without a readable answer has no vote, nor has an episode that a machine's fault ended.

===========  ==========================================================================================================
majority     every reply weighs 1
evidence     a scorer looks at each crop that a reply points at: 2, 1 or 0; see ``eval.voting`` and ``eval.relevance``
self         no scorer: a reply weighs what the other replies think of its evidence. The weight is 0.2 + 0.8 a, a being
             the mean overlap of its evidence with that of the others: tIoU of segments; of boxes the mean, both ways,
             of the best IoU with a box within a second. Replies that looked where no other looked count little.
===========  ==========================================================================================================

What a reply points at is the boxes with times in its last thought if there are any, else its evidence as an audit takes
it (``eval.perturb``): the answered segments, else the last crops.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from timeloupe.errors import ConfigError
from timeloupe.eval import strict
from timeloupe.eval.metrics import Interval, bootstrap_interval, paired_bootstrap_difference
from timeloupe.eval.perturb import Span, evidence_spans
from timeloupe.eval.predictions import of_episodes
from timeloupe.eval.scoring import Benchmark, Row
from timeloupe.eval.voting import LOWEST_WEIGHT, Evidence, read_evidence
from timeloupe.eval.voting import vote as count_votes
from timeloupe.grounding import box_iou, set_iou
from timeloupe.trajectory import StopReason, Trajectory

MAJORITY, EVIDENCE, SELF = "majority", "evidence", "self"
VOTES = (MAJORITY, EVIDENCE, SELF)

NEAR_SECONDS = 1.0
"""Two boxes this close in time are about the same moment: times are often printed in whole seconds."""


@dataclass(frozen=True)
class Pointed:
    """What a reply points at: boxes with times, or else spans of time; or nothing."""

    claims: tuple[Evidence, ...] = ()
    spans: tuple[Span, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.claims or self.spans)


@dataclass(frozen=True)
class Choice:
    """What a vote chose for one question.

    Attributes:
        index: Which sample speaks; ``None`` = no sample has a readable answer.
        tied: Another answer weighed as much.
        num_votes: Samples with a vote.
        num_silent: Samples that ended without a readable answer.
        num_faults: Samples that a machine's fault ended.
    """

    index: int | None
    tied: bool = False
    num_votes: int = 0
    num_silent: int = 0
    num_faults: int = 0


@dataclass(frozen=True)
class Voted:
    """One answer per question.

    Attributes:
        by_id: Row id -> text of the chosen reply; "" where nobody had a vote; missing where machines lost all samples.
        choices: By row id.
    """

    by_id: Mapping[str, str]
    choices: Mapping[str, Choice] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        """Return questions that were tied, without a vote, or lost, and samples without an answer or lost."""
        choices = list(self.choices.values())
        lost = sum(one.index is None and not one.num_silent for one in choices)
        return {
            "questions_tied": sum(one.tied for one in choices),
            "questions_without_vote": sum(one.index is None for one in choices) - lost,
            "questions_lost": lost,
            "samples_without_answer": sum(one.num_silent for one in choices),
            "samples_lost": sum(one.num_faults for one in choices),
        }


def pointed_at(trajectory: Trajectory) -> Pointed:
    """Return what an answered episode points at; nothing where it did not answer."""
    if trajectory.answer is None:
        return Pointed()
    claims = read_evidence(trajectory.turns[-1].thought)
    return Pointed(claims=claims) if claims else Pointed(spans=evidence_spans(trajectory))


def agreement_weights(pointed: Sequence[Pointed]) -> list[float]:
    """Return the weight of each reply to one question, in [0.2, 1], by the overlap of its evidence with the others'.

    Only others that point at something are in the mean; without any the weight is 0.2.
    """
    weights: list[float] = []
    for at, one in enumerate(pointed):
        others = [other for number, other in enumerate(pointed) if number != at and other]
        overlap = math.fsum(overlap_of(one, other) for other in others) / len(others) if others else 0.0
        weights.append(LOWEST_WEIGHT + (1 - LOWEST_WEIGHT) * min(overlap, 1.0))
    return weights


def overlap_of(one: Pointed, two: Pointed) -> float:
    """Return how much two pieces of evidence agree, in [0, 1]; boxes and spans do not compare and give 0."""
    if one.claims and two.claims:
        return (_found_in(one.claims, two.claims) + _found_in(two.claims, one.claims)) / 2
    return set_iou(one.spans, two.spans) if one.spans and two.spans else 0.0


def _found_in(ones: Sequence[Evidence], twos: Sequence[Evidence]) -> float:
    best = [
        max(
            (
                box_iou(one.box, two.box)
                for two in twos
                if abs(one.at_seconds - two.at_seconds) <= NEAR_SECONDS
            ),
            default=0.0,
        )
        for one in ones
    ]
    return math.fsum(best) / len(best)


def choose(row: Row, samples: Sequence[Trajectory], weights: Sequence[float]) -> Choice:
    """Return the sample that speaks for all.

    Args:
        row: The question.
        samples: Its episodes, in the order of their roll-out index.
        weights: One each, >= 0.
    """
    if len(samples) != len(weights):
        raise ValueError(f"need one weight per sample, got {len(weights)} for {len(samples)}")
    said = [_read(row, one) for one in samples]
    faults = sum(one.stop is StopReason.INFRASTRUCTURE for one in samples)
    voters = [at for at, one in enumerate(said) if one is not None and weights[at] > 0]
    index, tied = None, False
    if voters and isinstance(said[voters[0]], str):
        index, tied = _plurality(said, weights, voters)
    elif voters:
        index, tied = _medoid(said, weights, voters)
    return Choice(index, tied, len(voters), len(samples) - len(voters) - faults, faults)


def _read(row: Row, sample: Trajectory) -> Any:
    """What a sample says: a text that stands for the answer, or windows; ``None`` = nothing that can be read."""
    if sample.answer is None or sample.stop is StopReason.INFRASTRUCTURE:
        return None
    text = sample.turns[-1].generation.text
    if row.options:
        return strict.read_letter(text, row)[0]
    if row.task in ("grounding", "multi_segment"):
        return strict.read_windows(text, row)[0] or None
    return " ".join(strict.answer_part(text).casefold().split()) or None


def _plurality(said: Sequence[Any], weights: Sequence[float], voters: Sequence[int]) -> tuple[int, bool]:
    answers = [said[at] for at in voters]
    counted = count_votes(answers, [weights[at] for at in voters], list(dict.fromkeys(answers)))
    top = counted.scores[counted.answer or ""]
    tied = sum(math.isclose(score, top) for score in counted.scores.values()) > 1
    # Sums of the same weights in another order may differ in the last digit; the first of such equals wins.
    answer = next(answer for answer, score in counted.scores.items() if math.isclose(score, top))
    return max((at for at in voters if said[at] == answer), key=lambda at: (weights[at], -at)), tied


def _medoid(said: Sequence[Any], weights: Sequence[float], voters: Sequence[int]) -> tuple[int, bool]:
    density = [math.fsum(weights[two] * set_iou(said[one], said[two]) for two in voters) for one in voters]
    best = [at for at, value in zip(voters, density, strict=True) if math.isclose(value, max(density))]
    return best[0], any(said[at] != said[best[0]] for at in best)


def vote(
    rows: Sequence[Row],
    samples: Mapping[str, Sequence[Trajectory]],
    weigh: Callable[[Sequence[Trajectory]], Sequence[float]],
) -> Voted:
    """Return one answer per question.

    Args:
        rows: The questions.
        samples: The episodes of each, by row id; a question may have none.
        weigh: The weights of one question's episodes.
    """
    by_id: dict[str, str] = {}
    choices: dict[str, Choice] = {}
    for row in rows:
        some = samples.get(row.id, ())
        choice = choices[row.id] = choose(row, some, weigh(some))
        if choice.index is not None:
            by_id[row.id] = some[choice.index].turns[-1].generation.text
        elif choice.num_silent:
            by_id[row.id] = ""
    return Voted(by_id, choices)


def equal_weights(samples: Sequence[Trajectory]) -> list[float]:
    """Return 1 for every sample."""
    return [1.0] * len(samples)


def self_weights(samples: Sequence[Trajectory]) -> list[float]:
    """Return the weights of ``self``."""
    return agreement_weights([pointed_at(one) for one in samples])


def by_question(trajectories: Sequence[Trajectory]) -> dict[str, list[Trajectory]]:
    """Return the episodes of each question in the order of their roll-out index."""
    found: dict[str, list[Trajectory]] = {}
    for one in sorted(trajectories, key=lambda one: one.rollout_index):
        found.setdefault(one.example.id, []).append(one)
    return found


def check_evidence(trajectories: Sequence[Trajectory], kind: str) -> int:
    """Return how many answered episodes point at nothing.

    Raises:
        ConfigError: All of them do: there is nothing to weigh.
    """
    answered = [one for one in trajectories if one.answer is not None]
    without = sum(not pointed_at(one) for one in answered)
    if answered and without == len(answered):
        raise ConfigError(
            f"--vote {kind} weighs evidence, and none of {len(answered)} replies points at any (protocol "
            f"{answered[0].protocol!r}): play with the tool or a protocol that marks boxes, or take --vote majority"
        )
    return without


@dataclass(frozen=True)
class Gains:
    """What a vote gives over the questions of one task; values are the strict mode's, intervals are by video.

    Attributes:
        num_questions: Questions.
        single: Mean of single samples.
        voted: The vote.
        gain: The vote minus the mean of single samples, question by question.
        best: The best sample of each question, which only the truth can choose: pass@N.
    """

    num_questions: int
    single: Interval
    voted: Interval
    gain: Interval
    best: Interval


def gains(
    benchmark: Benchmark,
    rows: Sequence[Row],
    trajectories: Sequence[Trajectory],
    voted: Voted,
    *,
    seed: int = 0,
) -> dict[str, Gains]:
    """Return what the vote gives, by task, and over all tasks if there are several.

    Samples that machines lost count as in the strict mode: an answer that is missing is wrong.
    """
    last = max((one.rollout_index for one in trajectories), default=0)
    samples = [
        benchmark.strict(
            rows, of_episodes([one for one in trajectories if one.rollout_index == at], "").by_id
        )
        for at in range(last + 1)
    ]
    chosen = benchmark.strict(rows, voted.by_id).values
    tasks = {
        task: [row for row in rows if row.task == task] for task in dict.fromkeys(row.task for row in rows)
    }
    return {
        task: _gains(some, [table.values for table in samples], chosen, seed)
        for task, some in (tasks | ({"all": list(rows)} if len(tasks) > 1 else {})).items()
    }


def _gains(
    rows: Sequence[Row], samples: Sequence[Mapping[str, float]], chosen: Mapping[str, float], seed: int
) -> Gains:
    usable = [row for row in rows if row.id in chosen]
    videos = [row.video for row in usable]
    single = [math.fsum(one[row.id] for one in samples) / len(samples) for row in usable]
    best = [max(one[row.id] for one in samples) for row in usable]
    voted = [chosen[row.id] for row in usable]
    return Gains(
        len(rows),
        bootstrap_interval(single, videos, seed=seed), bootstrap_interval(voted, videos, seed=seed),
        paired_bootstrap_difference(voted, single, videos, seed=seed), bootstrap_interval(best, videos, seed=seed),
    )  # fmt: skip


def facts(found: Mapping[str, Gains]) -> dict[str, Any]:
    """Return gains as JSON data."""
    return {task: asdict(one) for task, one in found.items()}
