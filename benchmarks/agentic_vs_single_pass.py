"""Looking closer against a single pass at the same skim, per duration bin, over training seeds, with controls.

    python benchmarks/agentic_vs_single_pass.py WORLD MODEL [MODEL ...] --seeds SEED [SEED ...]

WORLD is a scratch folder for the held-out MP4s (made on first use, evaluation seeds only); each MODEL is the finished
folder of one training seed. Teacher rows are the ceiling: perfect sight of the very frames that were shown. The model's
figures are means over training seeds; intervals are bootstraps over videos.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from record import ROOT, record

from timeloupe.environment.rollout import play
from timeloupe.environment.settings import EpisodeSettings, make_settings
from timeloupe.environment.teacher_policy import TeacherPolicy
from timeloupe.eval.compare import THRESHOLDS, Outcome, Section, compare, evidence_tiou, outcome
from timeloupe.eval.metrics import bootstrap_interval
from timeloupe.grounding import tiou
from timeloupe.model.load import load_model
from timeloupe.policy.local import LocalPolicy
from timeloupe.prompt.protocol import PROTOCOLS
from timeloupe.trajectory import Example, Trajectory
from timeloupe.video.cache import FrameCache
from timeloupe.world.encode import WorldVideo, make_videos
from timeloupe.world.script import EVALUATION_SEEDS, ScriptSettings, WorldScript
from timeloupe.world.teacher import frame_facts, question_of

BINS_MINUTES = {"3-10": (3.0, 10.0), "10-20": (10.0, 20.0), "20-40": (20.0, 40.0)}
WORLD_SEED = EVALUATION_SEEDS[-1]
"""The frozen evaluation set of this study."""


def held_out(folder: Path, videos_per_bin: int) -> list[WorldVideo]:
    """Return the evaluation videos, bins interleaved, with two grounding and two multiple-choice questions each."""
    lengths = [
        ScriptSettings(min_seconds=60 * low, max_seconds=60 * high) for low, high in BINS_MINUTES.values()
    ]
    made = make_videos(
        folder, seed=WORLD_SEED, num_videos=videos_per_bin * len(lengths),
        settings_of=lambda index: lengths[index % len(lengths)], per_task=2,
    )  # fmt: skip
    return list(made)


def interval(values: Sequence[tuple[str, float | None]]) -> dict[str, float] | None:
    """Return mean and bootstrap interval of (video, value) pairs, videos resampled."""
    known = [(video, value) for video, value in values if value is not None]
    if not known:
        return None
    found = bootstrap_interval([value for _, value in known], [video for video, _ in known], seed=0)
    assert found.mean is not None and found.low is not None and found.high is not None
    return {"mean": found.mean, "low": found.low, "high": found.high}


def row(pairs: Sequence[tuple[Outcome, Trajectory | None]], seconds: float | None = None) -> dict[str, Any]:
    """Return one line of the table from outcomes and, where something was played, their episodes."""
    outcomes = [one for one, _ in pairs]
    groundings = [(one.example.video, one.tiou) for one in outcomes]
    figures: dict[str, Any] = {"n": len(outcomes), "mIoU": interval(groundings)}
    for threshold in THRESHOLDS:
        hits = [(video, None if value is None else float(value >= threshold)) for video, value in groundings]
        figures[f"R@{threshold}"] = interval(hits)
    figures["letter accuracy"] = interval([(one.example.video, one.right) for one in outcomes])
    played = [(one, trajectory) for one, trajectory in pairs if trajectory is not None]
    if played:
        evidence = [(one.example.video, evidence_tiou(t)) for one, t in played if one.right is not None]
        looked = any(one.crops for one in outcomes)
        figures["evidence IoU (multiple choice)"] = interval(evidence) if looked else None
        figures["crops"] = round(sum(one.crops for one in outcomes) / len(outcomes), 3)
        figures["frames decoded"] = round(sum(one.frames_decoded for one in outcomes) / len(outcomes), 1)
        figures["frames cached"] = round(sum(one.frames_cached for one in outcomes) / len(outcomes), 1)
    if seconds is not None:
        figures["seconds"] = round(seconds / len(outcomes), 4)
    return figures


def gain(ones: Sequence[Section], others: Sequence[Section]) -> dict[str, Any]:
    """Return what the first sections have over the second ones, question by question, videos resampled."""
    figures: dict[str, Any] = {"n": sum(len(one.outcomes) for one in ones)}
    values: dict[str, list[tuple[str, float | None]]] = {"mIoU": [], "R@0.5": [], "letter accuracy": []}
    for one, other in zip(ones, others, strict=True):
        for a, b in zip(one.outcomes, other.outcomes, strict=True):
            video = a.example.video
            if a.tiou is not None and b.tiou is not None:
                values["mIoU"].append((video, a.tiou - b.tiou))
                values["R@0.5"].append((video, float(a.tiou >= 0.5) - float(b.tiou >= 0.5)))
            if a.right is not None and b.right is not None:
                values["letter accuracy"].append((video, a.right - b.right))
    return figures | {name: interval(pairs) for name, pairs in values.items()}


def teacher_sections(videos: Sequence[WorldVideo], settings: EpisodeSettings) -> dict[str, Section]:
    """Return what perfect sight of the shown frames reaches: agentic, in a single pass, and with as many frames."""
    known = {
        example.id: (video.script, example.model_copy(update={"video": str(video.path)}))
        for video in videos
        for example in video.examples
    }
    examples = [example for _, example in known.values()]
    found: dict[str, Section] = {}
    sections: dict[str, dict[str, Any]] = {
        "teacher agentic": {},
        "teacher single pass": {"tools": False},
        "teacher single pass, 40 frames": {"tools": False, "skim_frames": 40},
    }
    for name, changes in sections.items():
        ways = settings.model_copy(update=changes)
        policy = TeacherPolicy(known, tools=ways.tools, max_turns=ways.num_turns)
        cache = FrameCache(256 * 2**20)
        played = [
            trajectory
            for at in range(0, len(examples), 32)
            for trajectory in play(
                examples[at : at + 32], policy, PROTOCOLS["small"], ways, seed=0, cache=cache
            )
        ]
        found[name] = Section(name, tuple(outcome(one) for one in played), 0.0, tuple(played))
        if not ways.tools:
            guesses = tuple(guess_between(known[one.example.id][0], one) for one in played)
            found[name.replace("teacher single pass", "best guess between frames")] = Section(
                name, guesses, 0.0
            )
    return found


def guess_between(script: WorldScript, trajectory: Trajectory) -> Outcome:
    """Return the best that a single pass can do for a grounding question: perfect sight, and each boundary put half-way
    between the frames that it lies between (the scene's boundaries where the event is not seen)."""
    example = trajectory.example
    if example.task == "multiple_choice":
        return Outcome(example)
    times = trajectory.skims[0].at_seconds
    facts = frame_facts(script, question_of(script, example), times)
    seen = any(fact.in_event for fact in facts)
    hits = [index for index, fact in enumerate(facts) if (fact.in_event if seen else fact.in_scene)]
    if not hits:
        return Outcome(example, tiou=0.0)
    first, last = hits[0], hits[-1]
    start = (times[first] + times[first - 1]) / 2 if first else 0.0
    end = (times[last] + times[last + 1]) / 2 if last + 1 < len(times) else script.duration_seconds
    return Outcome(example, tiou=tiou((start, end), example.segments[0]))


def minutes_of(example: Example, durations: dict[str, float]) -> str:
    """Return the name of an example's duration bin."""
    minutes = durations[example.video] / 60
    return next(name for name, (low, high) in BINS_MINUTES.items() if low <= minutes <= high)


def table(pooled: dict[str, list[Section]], durations: dict[str, float]) -> dict[str, Any]:
    """Return all lines: every section over all questions, the model's by training run and by duration bin, the gain."""
    figures: dict[str, Any] = {}
    for name, parts in pooled.items():
        title = name.replace("_", " ")
        pairs = [
            (one, part.trajectories[index] if part.trajectories else None)
            for part in parts
            for index, one in enumerate(part.outcomes)
        ]
        is_model = name in ("agentic", "single_pass", "question_only")
        figures[title] = row(pairs, sum(part.seconds for part in parts) if is_model else None)
        if name not in ("agentic", "single_pass"):
            continue
        for bin_name in BINS_MINUTES:
            chosen = [(one, t) for one, t in pairs if minutes_of(one.example, durations) == bin_name]
            figures[f"{title}, {bin_name} min"] = row(chosen)
        for number, part in enumerate(parts):
            own = list(zip(part.outcomes, part.trajectories, strict=True))
            figures[f"{title}, model {number + 1}"] = row(own, part.seconds)
    figures["agentic minus single pass"] = gain(pooled["agentic"], pooled["single_pass"])
    return figures


def plot(figures: dict[str, Any], path: Path) -> None:
    """Draw mIoU, R@0.5 and letter accuracy per duration bin; whiskers are the bootstrap intervals."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    bins = [*BINS_MINUTES, "all"]
    colours = {"agentic": "#1f6f8b", "single pass": "#b5651d"}
    drawn, axes = pyplot.subplots(1, 3, figsize=(11, 3.4), constrained_layout=True)
    for axis, name in zip(axes, ("mIoU", "R@0.5", "letter accuracy"), strict=True):
        for offset, (section, colour) in enumerate(colours.items()):
            rows = [figures[section if one == "all" else f"{section}, {one} min"][name] for one in bins]
            errors = [[row["mean"] - row["low"] for row in rows], [row["high"] - row["mean"] for row in rows]]
            places = [index + 0.38 * (offset - 0.5) for index in range(len(bins))]
            axis.bar(
                places, [row["mean"] for row in rows], 0.36, yerr=errors, color=colour, label=section,
                error_kw={"lw": 1, "capsize": 2},
            )  # fmt: skip
        for section, style in (("teacher agentic", "--"), ("teacher single pass", ":")):
            axis.axhline(figures[section][name]["mean"], color="#555", lw=1, ls=style, label=section)
        axis.set_xticks(range(len(bins)), [one if one == "all" else f"{one} min" for one in bins], fontsize=8)
        axis.set_ylim(0, 1)
        axis.set_title(name, fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    drawn.legend(handles, labels, ncols=4, fontsize=8, frameon=False, loc="outside lower center")
    drawn.savefig(path, dpi=150)


def main() -> None:
    """Run the study and write docs/results.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("world", type=Path)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--videos-per-bin", type=int, default=36)
    parser.add_argument(
        "--seeds", type=int, nargs="*", default=None, help="training seeds of the models, for the record"
    )
    parser.add_argument("--id", default="agentic-vs-single-pass")
    parser.add_argument("--title", default="Looking closer against a single pass")
    parser.add_argument("--no-record", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    videos = held_out(arguments.world, arguments.videos_per_bin)
    examples = [e.model_copy(update={"video": str(v.path)}) for v in videos for e in v.examples]
    durations = {str(video.path): video.script.duration_seconds for video in videos}
    pooled: dict[str, list[Section]] = {}
    for number, folder in enumerate(arguments.models):
        loaded = load_model(folder, device="cpu")
        settings = make_settings(loaded.layout.details["episode"])
        sections = compare(
            examples, LocalPolicy(loaded), PROTOCOLS["small"], settings, seed=0,
            sections=(("agentic", "single_pass", "question_only") if number else
                              ("agentic", "single_pass", "question_only", "whole_video", "middle", "random")),
        )  # fmt: skip
        if number == 0:
            sections |= teacher_sections(videos, settings)
        for name, section in sections.items():
            pooled.setdefault(name, []).append(section)
    figures = table(pooled, durations)
    for stop in sorted({t.stop for part in pooled["agentic"] for t in part.trajectories}):
        count = sum(t.stop == stop for part in pooled["agentic"] for t in part.trajectories)
        print(f"agentic stop {stop}: {count}")
    for name, line in figures.items():
        print(name, line)
    if arguments.no_record:
        return
    plot(figures, ROOT / "docs" / f"{arguments.id}.png")
    seeds = " ".join(str(seed) for seed in arguments.seeds)
    names = " ".join(path.parent.name for path in arguments.models)
    record(
        arguments.id, title=arguments.title,
        command=f"python benchmarks/agentic_vs_single_pass.py WORLD {names} --seeds {seeds}",
        seeds=arguments.seeds, n=len(examples), figures=figures,
        notes=[
            f"{len(videos)} held-out MP4s of 3 to 40 minutes (evaluation seed {WORLD_SEED}), two grounding and two "
            "multiple-choice questions each; n in the rows counts questions times training seeds.",
            "mIoU and R@m (IoU >= m) over grounding questions, letter accuracy over multiple-choice questions (chance "
            "0.25); an unreadable or missing answer counts 0.",
            "Teacher rows: perfect sight of the very frames shown; where it has seen no digit it answers A.",
            "Single pass: the same model with the direct prompt, which a fifth of its rows taught; the single-pass "
            "teacher is the fairer bar. `40 frames`: as many as the agent sees with two crops.",
            "A training seed draws the initial weights; rows and their order are the same for all. `model N` is the "
            "N-th seed. Decoded frames are shared by the four questions of a video, as the cache gives them.",
            "Best guess between frames: perfect sight of the skim, each boundary half-way between frames around it: "
            "what no single pass at this skim can beat by much. Its replies would need times that no frame carries.",
            "whole video answers [0, duration); middle the middle fifth; random a random fifth and a random letter.",
        ],
        plots=[f"{arguments.id}.png"],
    )  # fmt: skip


if __name__ == "__main__":
    main()
