"""Option letters: every form that is read, everything that is refused."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timeloupe.errors import ConfigError
from timeloupe.prompt.parse import parse_option
from timeloupe.trajectory import Problem

READ = {
    "B": "B",
    " B \n": "B",
    "b": "B",
    "a": "A",
    "B.": "B",
    "c.": "C",
    "D)": "D",
    "(B)": "B",
    "(b)": "B",
    "[B]": "B",
    "**C**": "C",
    "`C`": "C",
    '"C"': "C",
    "B. a cat": "B",
    "B.a cat": "B",
    "B: a cat": "B",
    "B) a cat": "B",
    "(B) a cat": "B",
    "(b) a cat": "B",
    "b) a cat": "B",
    "**B.** a cat": "B",
    "A. A man walks": "A",
    "A: yes": "A",
    "B. Vitamin C": "B",
    "B. I think": "B",
    "Option B": "B",
    "option B is right": "B",
    "Option A is right": "A",
    "Option: B": "B",
    "Choice (C)": "C",
    "Answer: B": "B",
    "Answer: (D) a dog": "D",
    "Answer: A": "A",
    "ANSWER: **D**": "D",
    "The answer is C.": "C",
    "The answer is A.": "A",
    "The answer is (b).": "B",
    "The answer is C because of the hat": "C",
    "The best option is (C), I think": "C",
    "Correct Option: C": "C",
    "From <t>1</t>s to <t>2</t>s\nCorrect Option: C": "C",
    "It must be (D).": "D",
    "B. The man called J. Smith": "B",
}

REFUSED = {
    "": "option_missing",
    "  ": "option_missing",
    "3": "option_missing",
    "yes": "option_missing",
    "None": "option_missing",
    "A man walks": "option_missing",
    "a man walks": "option_missing",
    "A.M. news": "option_missing",
    "The answer is A man": "option_missing",
    "the answer is a cat": "option_missing",
    "I do not know": "option_missing",
    "ABCD": "option_missing",
    "BB": "option_missing",
    "It is B": "option_missing",
    "not A": "option_missing",
    "Because A is wrong, B": "option_missing",
    "Plan B": "option_missing",
    "Ｂ": "option_missing",
    "В": "option_missing",  # Cyrillic
    "A or B": "option_ambiguous",
    "A and B": "option_ambiguous",
    "A, B": "option_ambiguous",
    "A/B": "option_ambiguous",
    "B C": "option_ambiguous",
    "B. or C.": "option_ambiguous",
    "(A) (B)": "option_ambiguous",
    "B. a cat\nC. a dog": "option_ambiguous",
    "B. a cat (C)": "option_ambiguous",
    "Option A, not option B": "option_ambiguous",
    "Answer: B. No, answer: C": "option_ambiguous",
    "E": "option_out_of_range",
    "e": "option_out_of_range",
    "(Z)": "option_out_of_range",
    "Option E": "option_out_of_range",
    "B " * 6000: "option_too_long",
}


@pytest.mark.parametrize("text", READ)
def test_reads(text: str) -> None:
    assert parse_option(text, 4) == READ[text]


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: text[:30])
def test_refuses(text: str) -> None:
    found = parse_option(text, 4)
    assert isinstance(found, Problem), found
    assert found.reason == REFUSED[text]


def test_the_pronoun_is_no_option_but_the_label_is() -> None:
    assert parse_option("I", 10) == "I"
    assert parse_option("I. a cat", 10) == "I"
    found = parse_option("The answer is I guess", 10)
    assert isinstance(found, Problem) and found.reason == "option_missing"


@pytest.mark.parametrize("num_options", [0, -1, 27])
def test_the_number_of_options_must_fit(num_options: int) -> None:
    with pytest.raises(ConfigError, match=r"1\.\.26"):
        parse_option("A", num_options)


@settings(max_examples=300)
@given(
    text=st.one_of(
        st.text(max_size=40),
        st.lists(
            st.sampled_from(list("ABcEI .)([]*,\n") + ["option", "answer", " is "]),
            max_size=12,
        ).map("".join),
    ),
    num_options=st.integers(1, 26),
)  # fmt: skip
def test_any_text_gives_a_problem_or_a_letter_that_stands_alone_in_it(text: str, num_options: int) -> None:
    found = parse_option(text, num_options)
    if isinstance(found, Problem):
        return
    assert len(found) == 1 and "A" <= found < chr(ord("A") + num_options)
    assert re.search(rf"(?<![^\W_]){found}(?![^\W_])", text, re.IGNORECASE) or re.search(
        rf"(?<!\w){found}\.", text
    )


@pytest.mark.parametrize(
    "unit", ["A", "A ", "A,", "A. ", "(A", "((", "**", "option ", "answer is ", " ", "*A*"]
)
def test_long_text_takes_no_time(unit: str) -> None:
    started = time.process_time()
    for length in (9_999, 1_000_000):
        parse_option((unit * length)[:length], 4)
    assert time.process_time() - started < 1.0
