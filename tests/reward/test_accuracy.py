"""Letters, free text and judges."""

from __future__ import annotations

import pytest
from hypothesis import given

from tests.reward.episodes import answer, broken, call, episode, question
from tests.reward.hostile import BOMBS, texts
from timeloupe.errors import ConfigError
from timeloupe.reward import accuracy
from timeloupe.reward.accuracy import ACCURACY_PARTS, is_exact_option, rouge
from timeloupe.reward.base import Context
from timeloupe.trajectory import StopReason, Trajectory

NOW = Context()
QA = question()
OPEN = question(task="open", options=(), answer="The woman is wearing a red vest.")


def test_rouge_is_the_mean_of_three_f_measures() -> None:
    """Worked by hand: 3 of 3 words found among 5, 1 of 2 pairs among 4, a common run of 3."""
    truth, text = "a red vest and trousers", "a vest red"
    one, two, longest = 2 * 1 * 0.6 / 1.6, 0.0, 2 * (2 / 3) * 0.4 / (2 / 3 + 0.4)
    assert rouge(text, truth) == pytest.approx((one + two + longest) / 3)
    assert rouge(truth, truth) == 1.0
    assert rouge("dogs run", "dog running") == 1.0  # stems
    assert rouge("Yes.", "yes") == pytest.approx(2 / 3)  # one word has no pair
    assert rouge("", "yes") == rouge("yes", "") == rouge("...", "yes") == 0.0
    assert rouge("y" * 9_000, "y" * 9_000) == pytest.approx(2 / 3)  # a word that some stemmers choke on
    assert rouge("a " * 6_000, "a") == 0.0


@pytest.mark.parametrize(
    ("text", "exact"),
    [
        ("B", True),
        (" B\n", True),
        ("B.", True),
        ("(B)", True),
        ("[B]", True),
        ("B)", False),
        ("(B).", False),
        ("b", False),
    ],
)
def test_exact_options(text: str, exact: bool) -> None:
    assert is_exact_option(text, "B") is exact


def test_readings_of_a_letter() -> None:
    for text, readings in (
        ("C", (1, 1, 1)), ("C)", (1, 0, 1)), ("The answer is C", (1, 0, 0)), ("Cats", (0, 0, 1)), ("B", (0, 0, 0)),
    ):  # fmt: skip
        played = episode(QA, [answer(text)])
        for reading, right in zip(("parsed", "exact", "first_letter"), readings, strict=True):
            assert accuracy.option(played, NOW, reading=reading) == right, (text, reading)  # type: ignore[arg-type]
            assert accuracy.answer(played, NOW, reading=reading) == right  # type: ignore[arg-type]
    assert accuracy.option(episode(QA, [call((1, 2))]), NOW) == 0


def test_a_letter_is_read_where_the_record_lacks_it() -> None:
    played = episode(question(options=(), task="multiple_choice"), [answer("(C) an owl")])
    assert played.answer is not None and played.answer.option is None
    assert accuracy.option(played, NOW) == 1


def test_free_text() -> None:
    played = episode(OPEN, [answer("a red vest")])
    expected = rouge("a red vest", OPEN.answer or "")
    assert 0 < expected < 1
    assert accuracy.free_form(played, NOW) == accuracy.answer(played, NOW) == expected
    assert accuracy.free_form(episode(OPEN, ["<think>"]), NOW) == 0


def test_a_judge_is_asked() -> None:
    asked: list[tuple[str, str, str]] = []

    def judge(asks: str, truth: str, text: str) -> float | None:
        asked.append((asks, truth, text))
        return {"yes": 0.75, "no": None}.get(text, 2.0)

    context = Context(judge=judge)
    assert accuracy.judged(episode(OPEN, [answer("yes")]), context) == 0.75
    assert accuracy.answer(episode(OPEN, [answer("yes")]), context, free="judge") == 0.75
    assert accuracy.judged(episode(OPEN, [answer("no")]), context) is None
    assert asked[0] == (OPEN.question, OPEN.answer, "yes")
    with pytest.raises(ConfigError, match=r"grade of a judge, got 2\.0"):
        accuracy.judged(episode(OPEN, [answer("maybe")]), context)
    assert accuracy.judged(episode(OPEN, ["<think>"]), context) == 0  # nothing to ask about
    assert len(asked) == 4
    assert accuracy.judged(episode(OPEN, [answer("yes")]), NOW) is None


def test_what_cannot_be_scored_is_none() -> None:
    context = Context(judge=lambda asks, truth, text: 1.0)
    played = [answer("C")]
    for name, (part, _) in ACCURACY_PARTS.items():
        assert part(broken(QA), context) is None, name
        assert part(broken(OPEN), context) is None, name
        assert part(episode(question(answer=None), played), context) is None, name
        assert part(episode(question(options=(), task="open", answer=" "), played), context) is None, name
    assert accuracy.option(episode(question(answer="D"), played), NOW) is None  # there are three options
    assert accuracy.option(episode(OPEN, played), NOW) is None
    assert accuracy.free_form(episode(QA, played), NOW) is None
    assert accuracy.free_form(episode(OPEN.model_copy(update={"answer": "a " * 6_000}), played), NOW) is None


@given(texts())
def test_every_part_is_in_its_range_whatever_is_said(text: str) -> None:
    for example in (QA, OPEN):
        for played in (episode(example, [text]), episode(example, [answer(text)])):
            for name, (part, (low, high)) in ACCURACY_PARTS.items():
                value = part(played, NOW)
                assert value is None or low <= value <= high, name
            assert accuracy.option(played, NOW, reading="exact") in (None, 0.0, 1.0)


@pytest.mark.parametrize("bomb", BOMBS, ids=range(len(BOMBS)))
def test_a_quarter_megabyte_is_read_in_linear_time(bomb: str) -> None:
    for example in (QA, OPEN):
        assert accuracy.answer(episode(example, [answer(bomb)]), NOW) == 0
    assert accuracy.first_letter(bomb) in {"", *bomb}


def test_an_episode_without_turns_has_no_answer() -> None:
    empty = Trajectory(example=QA, policy="hand", protocol="videotemp", stop=StopReason.MAX_TOKENS)
    assert accuracy.answer(empty, NOW) == 0
