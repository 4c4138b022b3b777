"""Time segments: every form that is read, everything that is refused, and what must hold for any text."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timeloupe.errors import ConfigError
from timeloupe.prompt.build import write_segments
from timeloupe.prompt.parse import parse_segments
from timeloupe.prompt.protocol import PROTOCOLS
from timeloupe.prompt.segments import parse_tagged_segments
from timeloupe.prompt.times import read_seconds
from timeloupe.trajectory import Problem, Segment


def pairs(found: tuple[Segment, ...] | Problem) -> list[tuple[float, float]] | str:
    """The segments as pairs, or the problem's reason."""
    if isinstance(found, Problem):
        return found.reason
    return [(segment.start_seconds, segment.end_seconds) for segment in found]


ONE = [(24.3, 30.4)]
TWO = [(1.0, 2.0), (3.0, 4.0)]

READ = {
    "24.3-30.4": ONE,
    "24.3 - 30.4": ONE,
    "24.3 -30.4": ONE,
    "24.3–30.4": ONE,
    "24.3 — 30.4": ONE,
    "24.3−30.4": ONE,
    "24.3 ~ 30.4": ONE,
    "[24.3, 30.4]": ONE,
    "[24.3,30.4]": ONE,
    "[24.3 30.4]": ONE,
    "[24.3 - 30.4]": ONE,
    "(24.3, 30.4)": ONE,
    "[24.3, 30.4)": ONE,
    "[24.3s, 30.4s]": ONE,
    "24.3, 30.4": ONE,
    "24.3 30.4": ONE,
    "24.3 to 30.4": ONE,
    "24.3 until 30.4": ONE,
    "24.3s to 30.4s": ONE,
    "24.3s-30.4s": ONE,
    "24.3 s – 30.4 s": ONE,
    "24.3s and 30.4s": ONE,
    "24.3 sec to 30.4 secs": ONE,
    "24.3 seconds to 30.4 seconds": ONE,
    "24.3 TO 30.4 SECONDS": ONE,
    "from 24.3 to 30.4": ONE,
    "From 24.3 to 30.4 seconds.": ONE,
    "between 24.3 and 30.4": ONE,
    "<24.3> to <30.4>": ONE,
    "<24.3s> to <30.4s>": ONE,
    "From <t>24.3</t>s to <t>30.4</t>s": ONE,
    "**24.3** to **30.4**": ONE,
    "```json\n[24.3, 30.4]\n```": ONE,
    "The event happens in 24.3 - 30.4 seconds.": ONE,
    "The event happens from 24.3 to 30.4.": ONE,
    "The answer is [24.3, 30.4].": ONE,
    "She opens the door from 24.3 to 30.4 seconds.": ONE,
    "A red vest, [24.3, 30.4]": ONE,
    "Start time: 24.3 seconds. End time: 30.4 seconds.": ONE,
    "Start: 24.3\nEnd: 30.4": ONE,
    "start=24.3, end=30.4": ONE,
    "It starts at 24.3 s and ends at 30.4 s.": ONE,
    '{"start_time": 24.3, "end_time": 30.4}': ONE,
    '{"start": 24.3, "end": 30.4}': ONE,
    '{"end_time": 30.4, "start_time": 24.3}': ONE,
    "{'start_time': '24.3', 'end_time': '30.4'}": ONE,
    '{"segments": [[24.3, 30.4]]}': ONE,
    "00:24 - 00:30": [(24.0, 30.0)],
    "0:24-0:30": [(24.0, 30.0)],
    "1:05-1:20": [(65.0, 80.0)],
    "[1:05, 1:20]": [(65.0, 80.0)],
    "00:24.5 to 00:30.25": [(24.5, 30.25)],
    "1:02:03 to 1:02:10": [(3723.0, 3730.0)],
    "The event starts at 00:00:24 and ends at 00:00:30.": [(24.0, 30.0)],
    '{"start": "00:24", "end": "00:30"}': [(24.0, 30.0)],
    "90:00 to 91:30": [(5400.0, 5490.0)],
    "1-2 3-4": TWO,
    "1-2, 3-4": TWO,
    "1-2; 3-4": TWO,
    "1-2 and 3-4": TWO,
    "1-2\n3-4": TWO,
    "1-2\r\n3-4\n": TWO,
    "- 1 to 2\n- 3 to 4": TWO,
    "[[1, 2], [3, 4]]": TWO,
    "[1, 2], [3, 4]": TWO,
    "[1, 2] [3, 4]": TWO,
    "[1, 2] and [3, 4]": TWO,
    "(1, 2)\n(3, 4)": TWO,
    "[1, 2, 3, 4]": TWO,
    "1, 2, 3, 4": TWO,
    '[{"start_time": 1, "end_time": 2}, {"start_time": 3, "end_time": 4}]': TWO,
    "From <t>1</t>s to <t>2</t>s\nFrom <t>3</t>s to <t>4</t>s": TWO,
    "It happens in 1 - 2 seconds. It also happens in 3 - 4 seconds.": TWO,
    "3-4 1-2": [(3.0, 4.0), (1.0, 2.0)],
    "0 - 999999999999": [(0.0, 999999999999.0)],
}

REFUSED = {
    "": "segments_missing",
    "   \n": "segments_missing",
    "no times here": "segments_missing",
    "10": "numbers_odd",
    "around 10 seconds": "numbers_odd",
    "24:30": "numbers_odd",
    "10, 20, 30": "numbers_odd",
    "[10, 20, 30]": "numbers_odd",
    "10-20, 30": "numbers_odd",
    "20-10": "segment_empty",
    "10-10": "segment_empty",
    "[0, 0]": "segment_empty",
    "1-2, 4-3": "segment_empty",
    "-5 - 10": "segment_negative",
    "[-5, 10]": "segment_negative",
    "5 - -10": "segment_negative",
    "10--20": "segment_negative",
    "nan-inf": "segment_not_finite",
    "[0, Infinity]": "segment_not_finite",
    "0 to ∞": "segment_not_finite",
    "1e999-2e999": "number_malformed",
    "1e1 - 2e1": "number_malformed",
    "1_0 - 2_0": "number_malformed",
    "1234567890123-2234567890123": "number_malformed",
    "0.123456789012345678901 - 2": "number_malformed",
    ".5 - .9": "number_malformed",
    "5..5 - 9..1": "number_malformed",
    "1.2.3 - 4": "number_malformed",
    "1:5 - 1:9": "number_malformed",
    "1:75 - 2:00": "number_malformed",
    "1:60:00 - 2:00:00": "number_malformed",
    "1:2:3:4 - 5": "number_malformed",
    "５.0 - ９.0": "number_malformed",
    "١ - ٢": "number_malformed",
    "10½ - 20": "number_malformed",
    "video2 10-20": "number_malformed",
    "the 2nd time, 10-20": "number_malformed",
    "10-20-30": "segments_ambiguous",
    "10. 20": "segments_ambiguous",
    "1,234 - 1,300": "segments_ambiguous",
    "10 < 20": "segments_ambiguous",
    "10 -> 20": "segments_ambiguous",
    "10 + 20": "segments_ambiguous",
    "10% - 20%": "segments_ambiguous",
    "10' to 20'": "segments_ambiguous",
    "0:24 to 30": "segments_ambiguous",
    "10 s at 20 s": "segments_ambiguous",
    "He lifts 3 to 5 boxes": "segments_ambiguous",
    "He sits at 10 s and stands at 20 s": "segments_ambiguous",
    "In scene 2, from 10 to 20 seconds": "segments_ambiguous",
    "1. 10-20\n2. 30-40": "segments_ambiguous",
    '{"start": 1, "end": 2, "confidence": 0.9}': "segments_ambiguous",
    "Answer - 10 to 20": "segments_ambiguous",
    "[10, 20": "brackets_unbalanced",
    "10, 20]": "brackets_unbalanced",
    "][10, 20": "brackets_unbalanced",
    "10 to 20 minutes": "unit_unknown",
    "1 min to 2 min": "unit_unknown",
    "10m-20m": "unit_unknown",
    "100ms - 200ms": "unit_unknown",
    "frames [10, 20]": "unit_unknown",
    "1-2 " * 3000: "segments_too_long",
}

TOLERANT = {
    "20-10": [(10.0, 20.0)],
    "10-10, 1-2": [(1.0, 2.0)],
    "10, 20, 30": [(10.0, 20.0)],
    "1. 10-20\n2. 30-40": [(10.0, 20.0), (30.0, 40.0)],
    "In scene 2, from 10 to 20 seconds": [(10.0, 20.0)],
    "The 2nd time it happens, from 5.0 to 9.0 seconds": [(5.0, 9.0)],
    "He sits at 10 s and stands at 20 s": [(10.0, 20.0)],
    "[10, 20": [(10.0, 20.0)],
    "-5, 10, 20": [(10.0, 20.0)],
    "frame 12 at 5.0 s to frame 30 at 9.0 s": [(5.0, 9.0)],
    "10 to 20 minutes": "segments_missing",
    "nan-inf": "segments_missing",
    "10-10": "segments_missing",
    "７-８": "segments_missing",
}


@pytest.mark.parametrize("text", READ)
def test_strict_reads(text: str) -> None:
    assert pairs(parse_segments(text)) == READ[text]


@pytest.mark.parametrize("text", READ)
def test_tolerant_reads_what_strict_reads(text: str) -> None:
    assert pairs(parse_segments(text, "tolerant")) == READ[text]


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: text[:30])
def test_strict_refuses(text: str) -> None:
    assert pairs(parse_segments(text)) == REFUSED[text]


@pytest.mark.parametrize("text", TOLERANT)
def test_tolerant_reads(text: str) -> None:
    assert pairs(parse_segments(text, "tolerant")) == TOLERANT[text]


def test_the_mode_must_be_known() -> None:
    with pytest.raises(ConfigError, match="strict, tolerant"):
        parse_segments("1-2", "loose")  # pyright: ignore[reportArgumentType]


def test_tagged_segments_ignore_the_rest() -> None:
    text = "From <t>10.0</t>s to <t>20.0</t>s\nCorrect Option: C, 3 to 4"
    assert pairs(parse_tagged_segments(text)) == [(10.0, 20.0)]
    assert parse_tagged_segments("B. 3 to 4") == ()
    assert parse_tagged_segments("<t>20</t>s to <t>10</t>s") == ()


# --- what must hold for any text --------------------------------------------------------------------------------------

MILLISECONDS = 10**6 * 1000
ordered = st.tuples(st.integers(0, MILLISECONDS), st.integers(0, MILLISECONDS)).filter(
    lambda pair: pair[0] < pair[1]
)


def clock(milliseconds: int) -> str:
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest / 1000:06.3f}"


FORMS = {
    "dash": ("{}-{}", " "),
    "en dash": ("{} – {}", ", "),
    "list": ("[{}, {}]", ", "),
    "parentheses": ("({}, {})", " and "),
    "to": ("{}s to {}s", "\n"),
    "from": ("from {} to {}", "; "),
    "angles": ("<{}> to <{}>", "\n"),
    "tags": ("From <t>{}</t>s to <t>{}</t>s", "\n"),
    "json": ('{{"start_time": {}, "end_time": {}}}', ","),
    "flat": ("{}, {}", ", "),
}


@given(
    spans=st.lists(ordered, min_size=1, max_size=6),
    form=st.sampled_from(sorted(FORMS)),
    as_clock=st.booleans(),
)
def test_every_form_is_read_back(spans: list[tuple[int, int]], form: str, as_clock: bool) -> None:
    one, between = FORMS[form]
    write = clock if as_clock else lambda milliseconds: repr(milliseconds / 1000)
    text = between.join(one.format(write(start), write(end)) for start, end in spans)
    found = parse_segments(text)
    assert not isinstance(found, Problem), (text, found)
    got = [(segment.start_seconds, segment.end_seconds) for segment in found]
    assert got == [(pytest.approx(start / 1000), pytest.approx(end / 1000)) for start, end in spans]


@given(spans=st.lists(ordered, min_size=1, max_size=6), name=st.sampled_from(sorted(PROTOCOLS)))
def test_what_a_protocol_writes_is_read_back(spans: list[tuple[int, int]], name: str) -> None:
    protocol = PROTOCOLS[name]
    decimals = 3 if protocol.decimals is None else protocol.decimals
    segments = tuple(
        Segment(start_seconds=round(start / 1000, decimals), end_seconds=round(end / 1000, decimals) + 1)
        for start, end in spans
    )
    found = parse_segments(write_segments(segments, protocol))
    assert not isinstance(found, Problem)
    got = [(segment.start_seconds, segment.end_seconds) for segment in found]
    assert got == [(pytest.approx(one.start_seconds), pytest.approx(one.end_seconds)) for one in segments]


@given(st.floats(min_value=0, max_value=1e11, exclude_max=True))
def test_a_float_is_read_back_exactly(value: float) -> None:
    text = f"{value:.17f}".rstrip("0").rstrip(".")
    assert read_seconds(text) == float(text)


PIECES = st.sampled_from(
    [
        "1",
        "2.5",
        "30",
        "07",
        "1:05",
        "-",
        "–",
        "--",
        " ",
        "\n",
        ",",
        ";",
        "[",
        "]",
        "(",
        ")",
        "{",
        "}",
        "<",
        ">",
        "<t>",
    ]
    + [
        "</t>",
        "s",
        "seconds",
        "to",
        "and",
        "from",
        "start",
        "end",
        "starts at",
        "min",
        "frame",
        ".",
        ":",
        '"',
        "'",
        "nan",
    ]
    + ["1e9", "٣", "½", "man", "A", "*", "**", "%", "=", "_", "∞", "\x00", "\ud800"]
)
HOSTILE = st.one_of(
    st.text(max_size=60),
    st.lists(PIECES, max_size=20).map("".join),
    st.binary(max_size=60).map(lambda b: b.decode("latin-1")),
)


@settings(max_examples=300)
@given(text=HOSTILE, mode=st.sampled_from(["strict", "tolerant"]))
def test_any_text_gives_a_problem_or_times_that_stand_in_it(text: str, mode: str) -> None:
    found = parse_segments(text, mode)  # pyright: ignore[reportArgumentType]
    if isinstance(found, Problem):
        assert found.reason and found.message
        return
    written = {read_seconds(run.strip(".:")) for run in re.findall(r"[0-9.:]+", text)}
    assert found
    for segment in found:
        assert segment.start_seconds in written and segment.end_seconds in written
        assert segment.start_seconds < segment.end_seconds


@settings(max_examples=300)
@given(text=st.lists(PIECES, max_size=20).map("".join))
def test_strict_leaves_no_number_out(text: str) -> None:
    found = parse_segments(text)
    if not isinstance(found, Problem):
        assert 2 * len(found) == len(
            [run for run in re.findall(r"[0-9.:]+", text) if re.search("[0-9]", run)]
        )


@pytest.mark.parametrize(
    "unit", ["1", ":", ".", "-", "- ", "[", "1-", "<t>", "start ", "1 ", " ", "a_", "\n", "<1"]
)
@pytest.mark.parametrize("mode", ["strict", "tolerant"])
def test_long_text_takes_no_time(unit: str, mode: str) -> None:
    started = time.process_time()
    for length in (9_990, 1_000_000):
        parse_segments((unit * length)[:length], mode)  # pyright: ignore[reportArgumentType]
    parse_tagged_segments((unit * 1_000_000)[:1_000_000])
    assert time.process_time() - started < 1.0
