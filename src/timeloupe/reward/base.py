"""What a reward part is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from timeloupe.errors import boundary
from timeloupe.trajectory import Trajectory

Judge = Callable[[str, str, str], float | None]
"""(question, true answer, answer) -> agreement in [0, 1], or ``None`` if the judge could not tell."""


@dataclass(frozen=True)
class Context:
    """What a reward may look at beside the trajectory.

    Attributes:
        progress: Share of training that is done, in [0, 1]; schedules follow it.
        step: Share of the training that the step being scored is, in [0, 1]: after it, ``progress + step`` is done.
            0 = not scored in a training.
        log_prob_drop: Mean per-token log-probability of the reply on its own frames minus that on shuffled ones
            (TaRO's temporal sensitivity); ``None`` if it was not measured.
        log_prob_drop_threshold: What the drop is compared with, such as its group's mean; ``None`` likewise.
        judge: Grades free-form answers; ``None`` = none is at hand.
    """

    progress: float = 0.0
    log_prob_drop: float | None = None
    log_prob_drop_threshold: float | None = None
    judge: Judge | None = None
    step: float = 0.0


class Part(Protocol):
    """A reward part: trajectory, context and its constants -> a finite number in its stated range, or ``None``.

    ``None`` = cannot be scored (no truth in the example, the machine failed, nothing to judge with), which is not zero.
    """

    # What follows "/" is left open: a part names its own constants, by keyword only.
    def __call__(
        self, trajectory: Trajectory, context: Context, /, *args: Any, **constants: Any
    ) -> float | None: ...


def check_constant(name: str, value: float, lowest: float = 0.0) -> None:
    """Refuse a constant with which a part would leave its stated range.

    Raises:
        ConfigError: ``value`` is not in [lowest, 1].
    """
    if not lowest <= value <= 1:
        raise boundary(f"constant {name!r} of a reward", value, f"{lowest:g} to 1")
