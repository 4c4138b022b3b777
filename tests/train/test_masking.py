"""The unified mask."""

import pytest

from timeloupe.errors import ConfigError
from timeloupe.train.masking import MASKS, trained_turns


@pytest.mark.parametrize(
    ("num_turns", "mask", "expected"),
    [
        (1, "last_two_turns", [True]),
        (2, "last_two_turns", [True, True]),
        (3, "last_two_turns", [False, True, True]),
        (4, "last_two_turns", [False, False, True, True]),
        (3, "all_turns", [True, True, True]),
        (3, "last_turn", [False, False, True]),
        (1, "last_turn", [True]),
    ],
)
def test_which_turns_count(num_turns: int, mask: str, expected: list[bool]) -> None:
    assert trained_turns(num_turns, mask) == expected  # type: ignore[arg-type]


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ConfigError, match="last_two_turns"):
        trained_turns(3, "first_turn")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=">= 1"):
        trained_turns(0, "all_turns")


def test_every_mask_trains_the_last_turn() -> None:
    for mask in MASKS:
        for num_turns in range(1, 6):
            assert trained_turns(num_turns, mask)[-1]
