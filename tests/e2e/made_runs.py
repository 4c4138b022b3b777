"""Runs that nobody played: a world of questions, and episodes over it that answer right, wrong or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from timeloupe.eval.questions import digest_rows
from timeloupe.eval.registry import benchmark
from timeloupe.runs import create_run
from timeloupe.trajectory import Answer, Example, Generation, Problem, StopReason, Trajectory, Turn, Usage


def world_file(folder: Path, count: int, question: str = "When?") -> Path:
    """Annotations of a world that nobody drew: half of the questions ask for a time, half for a letter."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for at in range(count):
        shared: dict[str, Any] = {"id": f"q{at}", "video": f"v{at // 4}.mp4", "question": f"{question} {at}"}
        shared["segments"] = [{"start_seconds": 10, "end_seconds": 20}]
        options: dict[str, Any] = {"task": "multiple_choice", "options": ["a", "b", "c", "d"], "answer": "A"}
        lines.append(json.dumps(shared | ({"task": "grounding"} if at % 2 else options)))
    (folder / "examples.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    truth = [
        json.dumps({"video": f"v{at}.mp4", "duration_seconds": 60 + 7 * at}) for at in range((count + 3) // 4)
    ]
    (folder / "truth.jsonl").write_text("\n".join(truth) + "\n", encoding="utf-8")
    return folder


def write(
    folder: Path, world: Path, *, played: int | None = None, faults: int = 0, wrong: int = 0, repeats: int = 1,
    seed: int = 0, said: str = "", wanted: int | None = None,
) -> Path:  # fmt: skip
    """A run over a world: the first ``faults`` episodes lost, the next ``wrong`` ones wrong, the others right.

    ``repeats`` are there of the ``wanted`` ones.
    """
    rows = benchmark("world").load(world)
    run = create_run(folder, {
        "command": "eval", "benchmark": "world", "questions": len(rows), "questions_sha256": digest_rows(rows),
        "policy": {"name": "test"}, "protocol": "small", "episode": {"temperature": 0.0},
        "flags": {"data": str(world), "seed": seed, "repeats": wanted or repeats},
    })  # fmt: skip
    for repeat in range(repeats):
        for at, row in enumerate(rows[:played]):
            asked = Example.model_validate(
                {key: row.raw[key] for key in Example.model_fields if key in row.raw}
            )
            stop, problem, turns = StopReason.ANSWERED, None, ()
            if at < faults:
                stop, problem = StopReason.INFRASTRUCTURE, Problem(reason="policy", message=f"refused {said}")
            else:
                right = at >= faults + wrong
                text = ("A" if right else "B") if asked.options else ("[10, 20]" if right else "[50, 55]")
                usage = Usage(prompt_tokens=9, completion_tokens=1)
                turns = (Turn(
                    generation=Generation(text=f"<answer>{text}</answer> {said}", usage=usage),
                    answer=Answer(text=text, option=text if asked.options else None),
                ),)  # fmt: skip
            run.append(Trajectory(
                example=asked, policy="test", protocol="small", turns=turns, stop=stop, problem=problem, seconds=0.5,
                rollout_index=repeat, seed=seed,
            ))  # fmt: skip
    return folder
