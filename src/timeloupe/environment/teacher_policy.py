"""The world's teacher as a policy: perfect sight of the frames it is shown, and nothing else.

Its score is the ceiling of what any model can reach with these views (where it has not seen the digit it answers A, and
so is right as often as chance); its trajectories are training rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from timeloupe.policy.base import GenerationRequest, refuse_prefix
from timeloupe.trajectory import Example, Generation
from timeloupe.world.multi_segment import teacher_of
from timeloupe.world.script import WorldScript
from timeloupe.world.teach_evidence import EvidenceTeacher
from timeloupe.world.teacher import Voice


class TeacherPolicy:
    """Plays world questions from the truth about the frames in the prompt.

    Rows of the task ``what_when_where`` are answered at once with marked evidence (``world.teach_evidence``), whatever
    ``tools`` says; where it has not seen the digit it answers 0.

    Args:
        questions: Example id to its script and row.
        tools: Whether it may look closer.
        max_turns: It answers at this turn at the latest.
        voice: How it words answers in times.
    """

    name = "teacher"

    def __init__(
        self,
        questions: Mapping[str, tuple[WorldScript, Example]],
        *,
        tools: bool = True,
        max_turns: int = 3,
        voice: Voice | None = None,
    ) -> None:
        asks_where = {id for id, (_, example) in questions.items() if example.task == "what_when_where"}
        self._witnesses = {id: EvidenceTeacher(*questions[id]) for id in asks_where}
        self._teachers = {
            id: teacher_of(script, example, voice)
            for id, (script, example) in questions.items()
            if id not in asks_where
        }
        self._tools = tools
        self._max_turns = max_turns

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        """Return the teacher's reply to each request."""
        refuse_prefix(requests, self.name)
        found: list[Generation] = []
        for request in requests:
            views = [ref.at_seconds for message in request.messages for ref in message.frame_refs]
            if request.example_id in self._witnesses:
                text = self._witnesses[request.example_id].reply(views[-1], unseen_digit=0)
                found.append(Generation(text=text))
                continue
            last = len(request.generations) + 1 >= self._max_turns
            text = self._teachers[request.example_id].reply(
                views, tools=self._tools, must_answer=last, unseen_letter="A"
            )
            found.append(Generation(text=text))
        return found
