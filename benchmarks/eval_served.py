"""``timeloupe eval`` against a real vLLM server on the CPU, beside the same command with the local policy.

    make vllm-env
    python benchmarks/eval_served.py WORK [--videos 60] [--charades FOLDER_OF_OHOFG] [--record]

Both runs go through the installed command, with the small model: in this process (``--policy small``) and served by
vLLM (``--base-url``), which gets frames as PNG pictures after their times. Three sets are played:

world, T = 0    held-out world, grounding and multiple choice: every turn's text, stop reason and figure should be equal
world, T = 1    the same questions, sampled: vLLM draws with a generator of its own, so single episodes differ and the
                figures may differ by chance; the interval of the paired difference says whether they do
Charades, T = 0 the six Charades-STA test queries of one public clip (``OHOFG.mp4``, which may not be copied into the
                project: ``--charades`` names a folder with the clip and its ``charades_sta_test.jsonl``). The small
                model knows nothing of real videos: what is compared is the play, not its quality.

The script can be repeated: runs that are finished are kept, others are resumed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from record import ROOT, record

from timeloupe.engines.vllm_server import cpu_server
from timeloupe.policy.small import SMALL_CHECKPOINT
from timeloupe.runs import open_run
from timeloupe.trajectory import Trajectory
from timeloupe.world.script import EVALUATION_SEEDS

PYTHON = ROOT / ".venv-vllm" / "bin" / "python"
WORLD_SEED = EVALUATION_SEEDS[500]
SEED = 1
SERVED = ("--logprobs", "--settings-from", "small", "--time-format", "{:.0f}", "--image-format", "png")


def timeloupe(*words: str) -> None:
    """Run the command, its progress on this script's stderr."""
    subprocess.run([sys.executable, "-m", "timeloupe", *words], check=True, stdout=subprocess.DEVNULL)


def run_of(work: Path, title: str, how: str, words: list[str]) -> Path:
    """Return the folder of a finished run, played or resumed where it is not."""
    folder = work / f"{title}-{how}"
    if (folder / "card.json").exists():
        return folder
    if folder.exists():
        timeloupe("eval", "--resume", str(folder))
    else:
        timeloupe("eval", *words, "--run", str(folder), "--seed", str(SEED))
    return folder


def play_all(work: Path, sets: dict[str, list[str]], concurrency: int) -> dict[str, tuple[Path, Path]]:
    """Play every set both ways; the server runs only while it is needed."""
    local = {
        title: run_of(work, title, "local", [*words, "--policy", "small"]) for title, words in sets.items()
    }
    missing = [title for title in sets if not (work / f"{title}-served" / "card.json").exists()]
    if missing:
        log = work / "vllm.log"
        print(f"starting vLLM, log in {log}", file=sys.stderr, flush=True)
        # The port changes from start to start, so a resumed run must be told.
        with cpu_server(PYTHON, SMALL_CHECKPOINT, log=log, name="small", wait_seconds=900) as url:
            for title in missing:
                folder = work / f"{title}-served"
                if folder.exists():
                    timeloupe("eval", "--resume", str(folder), "--base-url", url)
                else:
                    timeloupe(
                        "eval", *sets[title], "--run", str(folder), "--seed", str(SEED), "--base-url", url, *SERVED,
                        "--concurrency", str(concurrency),
                    )  # fmt: skip
    return {title: (folder, work / f"{title}-served") for title, folder in local.items()}


def same_play(one: Trajectory, other: Trajectory) -> bool:
    """Whether two episodes hold the same texts, looks and end."""

    def story(trajectory: Trajectory) -> list[Any]:
        turns = [
            (turn.generation.text.strip(), turn.call, turn.answer, turn.observation)
            for turn in trajectory.turns
        ]
        return [trajectory.prompt, turns, trajectory.stop]

    return story(one) == story(other)


def gap_at_parting(one: Trajectory, other: Trajectory) -> float | None:
    """Return how far the log-probabilities of the first tokens that differ are apart; ``None`` = no token differs.

    Greedy choices are the likeliest tokens of each side: where the sides agree on the probabilities, a small gap says
    that two tokens were about equally likely.
    """
    for turn, answering in zip(one.turns, other.turns, strict=False):
        ours, theirs = turn.generation, answering.generation
        if (
            ours.token_ids is None
            or theirs.token_ids is None
            or ours.logprobs is None
            or theirs.logprobs is None
        ):
            return None
        for place, (mine, its) in enumerate(zip(ours.token_ids, theirs.token_ids, strict=False)):
            if mine != its:
                return abs(ours.logprobs[place] - theirs.logprobs[place])
    return None


def row_of(local: Path, served: Path, greedy: bool) -> dict[str, Any]:
    """Return the comparison of two runs of one set."""
    ones, others = ({one.example.id: one for one in open_run(folder).latest()} for folder in (local, served))
    assert ones.keys() == others.keys(), "both runs hold the same questions"
    cards = [json.loads((folder / "card.json").read_text(encoding="utf-8")) for folder in (local, served)]
    gaps = [gap for key in ones if (gap := gap_at_parting(ones[key], others[key])) is not None]
    row: dict[str, Any] = {
        "episodes": len(ones), "same_play": sum(same_play(ones[key], others[key]) for key in ones),
        "largest_gap_at_parting": max(gaps, default=None) if greedy else None,
        "lost_served": sum(one.stop.value == "infrastructure" for one in others.values()),
        "seconds_local": cards[0]["cost"]["wall_seconds"], "seconds_served": cards[1]["cost"]["wall_seconds"],
    }  # fmt: skip
    for name, value in cards[0]["scores"][0]["figures"].items():
        row[f"{name}_local"], row[f"{name}_served"] = value, cards[1]["scores"][0]["figures"][name]
    return row


def main() -> None:
    """Play, compare, print and record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--videos", type=int, default=60, help="videos of the world, six questions each")
    parser.add_argument("--charades", type=Path, help="folder with OHOFG.mp4 and charades_sta_test.jsonl")
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--record", action="store_true", help="write docs/results.*")
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    data = work / f"world-{arguments.videos}"
    if not (data / "examples.jsonl").exists():
        timeloupe(
            "world",
            "make",
            str(data),
            "--seed",
            str(WORLD_SEED),
            "--videos",
            str(arguments.videos),
            "--per-task",
            "3",
        )
    world = ["world", "--data", str(data)]
    sets = {"world-0": [*world, "--temperature", "0"], "world-1": [*world, "--temperature", "1"]}
    if arguments.charades:
        file = arguments.charades / "charades_sta_test.jsonl"
        sets["charades-0"] = [
            "charades_sta",
            "--data",
            str(file),
            "--videos",
            str(arguments.charades),
            "--temperature",
            "0",
        ]
    table = {
        title: row_of(*folders, greedy=title.endswith("-0"))
        for title, folders in play_all(work, sets, arguments.concurrency).items()
    }
    print(json.dumps(table, indent=2))
    if arguments.record:
        record(
            "eval_served", title="The eval command against vLLM on the CPU and with the local policy",
            command="python benchmarks/eval_served.py WORK --charades FOLDER --record", seeds=[SEED],
            n=sum(row["episodes"] for row in table.values()), figures=table,
            notes=[
                "At temperature 1 they draw different tokens from the same probabilities: vLLM has its own generator. "
                "Seconds are wall time.",
                "Charades: six queries of one clip; the small model knows nothing of real videos. Tokens that the "
                "local policy never samples (`<|none|>`, for training alone) are banned at the server by logit_bias; "
                "before that was sent, one of the six episodes parted at such a token.",
            ],
        )  # fmt: skip


if __name__ == "__main__":
    main()
