"""The ``Range`` header: what it asks for, by the standard's own words and by what never may happen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timeloupe.serve.byte_range import UnsatisfiableError, read_range


@pytest.mark.parametrize(
    ("header", "span"),
    [
        ("bytes=0-", (0, 1000)),
        ("bytes=0-0", (0, 1)),
        ("bytes=200-299", (200, 300)),
        ("bytes=990-5000", (990, 1000)),
        ("bytes=-100", (900, 1000)),
        ("bytes=-5000", (0, 1000)),
        ("Bytes= 10-19 ", (10, 20)),
        (None, None),
        ("", None),
        ("bytes=-", None),
        ("bytes=9-5", None),
        ("bytes=0-1,5-6", None),
        ("bytes=a-b", None),
        ("bytes=\u0663-", None),
        ("lines=0-1", None),
        ("bytes=0--1", None),
        ("bytes=" + "9" * 40 + "-", None),
    ],
)
def test_what_a_header_asks_for(header: str | None, span: tuple[int, int] | None) -> None:
    assert read_range(header, 1000) == span


@pytest.mark.parametrize(
    ("header", "size"),
    [("bytes=1000-", 1000), ("bytes=1000-1001", 1000), ("bytes=-0", 1000), ("bytes=-5", 0)],
)
def test_nothing_is_there(header: str, size: int) -> None:
    with pytest.raises(UnsatisfiableError):
        read_range(header, size)


@given(
    header=st.text(max_size=30) | st.from_regex(r"bytes=[0-9]{0,6}-[0-9]{0,6}", fullmatch=True),
    size=st.integers(0, 10**6),
)
def test_a_span_is_never_empty_and_lies_in_the_file(header: str, size: int) -> None:
    try:
        span = read_range(header, size)
    except UnsatisfiableError:
        return
    assert span is None or 0 <= span[0] < span[1] <= size
