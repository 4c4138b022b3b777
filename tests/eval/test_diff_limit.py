"""A run over all questions beside one over the first of them."""

from __future__ import annotations

import pytest

from tests.eval.test_diff import compared, episode, example, recorded
from timeloupe.eval.questions import digest_rows
from timeloupe.eval.recorded import asked_rows


def test_each_run_as_a_whole_is_over_the_questions_that_it_asked() -> None:
    every = [episode(example(at), "A" if at < 3 else "B") for at in range(6)]
    rows = asked_rows(recorded(every)).rows
    wholes = []
    for asked, played in ((6, 6), (2, 2), (4, 2)):
        config = {"questions": asked, "questions_sha256": digest_rows(rows[:asked])}
        wholes.append(recorded(every[:played], f"{played} of {asked}", config=config))
    for run, share in zip(wholes, (0.5, 1.0, 0.5), strict=True):
        (scored,) = compared(wholes[0], run).scored
        figures = [whole[0]["multiple_choice accuracy"] for whole in scored.wholes]
        assert figures == [pytest.approx(0.5), pytest.approx(share)], run.name
