"""The world's teacher as a policy: perfect sight of the frames it is shown, and nothing else.

Its score is the ceiling of what any model can reach with these views (where it has not seen the digit it answers A, and
so is right as often as chance); its trajectories are training rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from timeloupe.policy.base import GenerationRequest
from timeloupe.trajectory import Example, Generation
from timeloupe.world.script import WorldScript
from timeloupe.world.teacher import Teacher, question_of


class TeacherPolicy:
    """Plays world questions from the truth about the frames in the prompt.

    Args:
        questions: Example id to its script and row.
        tools: Whether it may look closer.
        max_turns: It answers at this turn at the latest.
    """

    name = "teacher"

    def __init__(
        self, questions: Mapping[str, tuple[WorldScript, Example]], *, tools: bool = True, max_turns: int = 3
    ) -> None:
        self._teachers = {
            id: Teacher(script, question_of(script, example)) for id, (script, example) in questions.items()
        }
        self._tools = tools
        self._max_turns = max_turns

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        """Return the teacher's reply to each request."""
        found: list[Generation] = []
        for request in requests:
            views = [ref.at_seconds for message in request.messages for ref in message.frame_refs]
            last = len(request.generations) + 1 >= self._max_turns
            text = self._teachers[request.example_id].reply(
                views, tools=self._tools, must_answer=last, unseen_letter="A"
            )
            found.append(Generation(text=text))
        return found
