"""What reading frames costs: processor time and memory of our reader and of others, for the same frames.

    python benchmarks/reader_speed.py --work WORK [--python PEERS] [--lines WORD ...] [--readers NAME ...]
                                      [--repeats N] [--record]

Every line below is one job: so many frames of so many spans of a video, as uint8 RGB of the size that a Qwen-VL model
takes for 200,704 pixels. Each measurement is a fresh process that imports its library first and then does the job; what
counts is the CPU-seconds of the process and its children, and the peak of their memory. Readers take turns (A, B, C, A,
B, C), so what else the machine does hits all of them alike; a line's figure is the median over repeats of the ratio to
ours in the same turn.

The workload is one question asked of a video 8 times, as reinforcement learning does: each roll-out skims the video
with 128 frames and looks at 3 crops of 10 s at 4 frames a second, around the same three moments (whole seconds, 5 s off
on average). Ours shares one cache of 256 MB there and has none on other lines. The others keep nothing, and the line
is given in both ways: every roll-out reads for itself, which is what their users' code does; and the skim is read once
and handed on, which a careful user would write. For readers that keep nothing the same skim is measured once or twice
and counted 8 times, and in the 1080p video the crops of one roll-out are too.

``minimum``: the fewest frames that any exact decoder must decode, counted from the packets of the file without our
reader: from a keyframe to each wanted frame, less the frames that no other refers to (nal_ref_idc 0) and nobody wants.

By default three long lines of the 1080p video are left out; ``--lines h min`` runs everything.

Finished measurements are kept in ``WORK/speed.json``: a run that was stopped goes on; delete the file to start anew.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import av
import numpy as np
from reader_clips import CLIPS, SECONDS, make_clip
from reader_peers import READERS
from record import ROOT, record

from timeloupe.video.image import fit_size

LIMIT_SECONDS = 900
ROLL_OUTS, SKIM, PLACES = 8, 128, 3
FIRST = "timeloupe"
OURS_ONLY_HERE = ("timeloupe, no cache", "timeloupe, 160 MB cache", "timeloupe, warm disk")
"""Readers that differ from ours in their cache, so on the workload only."""


@dataclass(frozen=True)
class Line:
    """One job.

    Attributes:
        clip: Name of the video.
        frames: Frames of each span.
        span_seconds: Length of a span; ``None`` = the whole video.
        spans: How many.
        repeats: Measurements of each reader.
        workload: The roll-outs; the rest says nothing then.
    """

    clip: str
    frames: int = 0
    span_seconds: float | None = None
    spans: int = 1
    repeats: int = 1
    workload: bool = False


LINES: dict[str, Line] = {
    "skim 64, 1 h 360p": Line("hour_360p", 64),
    "skim 256, 1 h 360p": Line("hour_360p", 256),
    "crop 10 s at 4 fps, 1 h 360p": Line("hour_360p", 40, 10, spans=3, repeats=2),
    "crop 60 s at 2 fps, 1 h 360p": Line("hour_360p", 120, 60, repeats=2),
    "workload, 1 h 360p": Line("hour_360p", workload=True),
    "skim 64, 10 min 1080p": Line("ten_minutes_1080p", 64),
    "skim 256, 10 min 1080p": Line("ten_minutes_1080p", 256),
    "crop 10 s at 4 fps, 10 min 1080p": Line("ten_minutes_1080p", 40, 10),
    "crop 60 s at 2 fps, 10 min 1080p": Line("ten_minutes_1080p", 120, 60),
    "workload, 10 min 1080p": Line("ten_minutes_1080p", workload=True),
}
LONG = ("skim 256, 10 min 1080p", "crop 60 s at 2 fps, 10 min 1080p", "workload, 10 min 1080p")
"""Lines that are run only when they are named: they take as long as all others."""
WORKLOAD_READERS = (
    "torchcodec",
    "decord",
    "qwen-vl-utils (torchcodec)",
    "qwen-vl-utils (decord)",
    "cut a clip",
)
FEW_1080P = (
    "timeloupe", "timeloupe, keyframe skim", "torchcodec", "decord", "OpenCV, seek", "qwen-vl-utils (torchcodec)",
    "cut a clip",
)  # fmt: skip
"""Readers that do the skims and the workload of the 1080p video, where the others take minutes each."""
FULL_DECODES = ("skim 64, 1 h 360p",)
"""Skims for which FFmpeg's fps filter is run: it decodes the whole video."""


def cells(start: float, end: float, count: int) -> list[float]:
    """Return the centres of equal cells."""
    step = (end - start) / count
    return [start + step * (number + 0.5) for number in range(count)]


def reads_of(line: Line) -> list[list[float]]:
    """Return the times of every read of a line, in order."""
    rng = random.Random(17)
    length = SECONDS[line.clip]
    if not line.workload:
        if line.span_seconds is None:
            return [cells(0, length, line.frames)]
        starts = [rng.randrange(20, length - 100) + 0.3 for _ in range(line.spans)]
        return [cells(start, start + line.span_seconds, line.frames) for start in starts]
    places = [rng.randrange(60, length - 60) for _ in range(PLACES)]
    reads = []
    for _ in range(ROLL_OUTS):
        reads.append(cells(0, length, SKIM))
        for place in places:
            start = place + round(rng.gauss(0, 6))
            reads.append(cells(start, start + 10, 40))
    return reads


def runs_on(name: str, line_name: str) -> bool:
    """Return whether a reader takes part in a line."""
    line = LINES[line_name]
    skims, reader = line.workload or line.span_seconds is None, READERS[name]
    if skims and "1080p" in line.clip and name not in FEW_1080P:
        return False
    if name in OURS_ONLY_HERE:
        return line.workload
    if name == "timeloupe, keyframe skim":
        return skims
    if line.workload:
        return reader.ours or name in WORKLOAD_READERS
    if skims:
        return reader.whole and (name != "ffmpeg, fps filter" or line_name in FULL_DECODES)
    return name not in ("ffmpeg, -ss each", "torchcodec, approximate", "qwen-vl-utils (torchvision)")


def measure_one(name: str, line: Line, clip: Path, python: str, work: Path) -> dict[str, Any]:
    """Return the figures of one process, or ``{"why": ...}`` if it failed."""
    reads = reads_of(line)
    skims_measured = ROLL_OUTS
    rounds = ROLL_OUTS  # of crops that are measured
    if line.workload and not READERS[name].keeps:
        skims_measured, rounds = (2, ROLL_OUTS) if "360p" in line.clip else (1, 1)
        crops = [times for number, times in enumerate(reads) if number % (PLACES + 1)]
        reads = [*[reads[0]] * skims_measured, *crops[: rounds * PLACES]]
    size = fit_size(CLIPS[line.clip]["size_wh"], min_pixels=0, max_pixels=200_704, multiple=28)
    job = work / "job.json"
    facts = {"path": str(clip), "size_wh": size, "reads": reads, "shared": line.workload}
    job.write_text(json.dumps(facts), encoding="utf-8")
    disk = work / "disk"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "READER_STUDY_DISK": str(disk)}
    words = [python, str(ROOT / "benchmarks" / "reader_peers.py"), name, str(job)]
    try:
        for _ in range(2 if name == "timeloupe, warm disk" else 1):  # the first fills it
            ended = subprocess.run(
                words, capture_output=True, text=True, timeout=LIMIT_SECONDS, env=environment, check=False
            )
    except subprocess.TimeoutExpired:
        return {"why": f"not done after {LIMIT_SECONDS} s"}
    finally:
        shutil.rmtree(disk, ignore_errors=True)
    if ended.returncode:
        return {"why": (ended.stderr.strip().splitlines() or ["no message"])[-1][-200:]}
    found = json.loads(ended.stdout.strip().splitlines()[-1])
    seconds = found.pop("seconds")
    found["cpu_seconds"] = found["cpu_seconds_skim_once"] = sum(seconds)
    if line.workload and not READERS[name].keeps:
        skims, crops = seconds[:skims_measured], seconds[skims_measured:]
        all_crops = sum(crops) * ROLL_OUTS / rounds
        found["cpu_seconds"] = sum(skims) / len(skims) * ROLL_OUTS + all_crops
        found["cpu_seconds_skim_once"] = skims[0] + all_crops
    return found


# -- the fewest frames that must be decoded ----------------------------------------------------------------------------


@functools.cache
def packet_facts(clip: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return of each packet in decoding order: its presentation time in seconds, keyframe, referred to by others."""
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        rows = [
            (float(packet.pts * packet.time_base), packet.is_keyframe, _is_reference(bytes(packet)))
            for packet in container.demux(stream)
            if packet.size
        ]
    seconds, keys, references = zip(*rows, strict=True)
    return np.array(seconds), np.array(keys), np.array(references)


def _is_reference(packet: bytes) -> bool:
    """Return whether the first slice's nal_ref_idc is not 0; lengths of NAL units take 4 bytes."""
    at = 0
    while at < len(packet):
        header = packet[at + 4]
        if header & 31 in (1, 5):
            return header & 0x60 != 0
        at += 4 + int.from_bytes(packet[at : at + 4], "big")
    return True


def minimum_decoded(clip: Path, reads: Sequence[Sequence[float]]) -> int:
    """Return the fewest frames for ``reads`` in turn, where a frame that was read before costs nothing."""
    seconds, keys, references = packet_facts(clip)
    order = np.argsort(seconds)
    shown = seconds[order] - seconds[order[0]]
    group = np.cumsum(keys)
    seen: set[int] = set()
    total = 0
    for times in reads:
        frames = np.searchsorted(shown, np.array(times) + 1e-6, side="right") - 1
        packets = np.unique(order[frames])
        packets = packets[[int(packet) not in seen for packet in packets]]
        seen.update(packets.tolist())
        for number in np.unique(group[packets]):
            wanted = packets[group[packets] == number]
            key = int(np.flatnonzero(group == number)[0])
            total += int(references[key : wanted[-1] + 1].sum()) + int((~references[wanted]).sum())
    return total


# -- the study ---------------------------------------------------------------------------------------------------------


def table_of(done: dict[str, Any], minima: dict[str, int]) -> dict[str, Any]:
    """Return the rows: one for each line and reader, the workload in both ways, and the summary."""
    table: dict[str, Any] = {}
    for line_name, line in LINES.items():
        ways = ("cpu_seconds", "cpu_seconds_skim_once") if line.workload else ("cpu_seconds",)
        for way in ways:
            title = line_name + (", skim read once" if way != "cpu_seconds" else "")
            for name in READERS:
                turns = [
                    (found, done.get(f"{line_name}|{FIRST}|{turn}"))
                    for turn in range(99)
                    if "why" not in (found := done.get(f"{line_name}|{name}|{turn}", {"why": ""}))
                ]
                ratios = [found[way] / ours[way] for found, ours in turns if ours and "why" not in ours]
                if not ratios:
                    continue
                row = {"cpu ratio to ours": round(median(ratios), 3)}
                for column, key in (("cpu s", way), ("peak MB", "peak_mb"), ("growth MB", "growth_mb")):
                    row[column] = round(median(found[key] for found, _ in turns), 2)
                if name == FIRST and line_name in minima:
                    row["decoded"], row["minimum"] = turns[0][0]["decoded"], minima[line_name]
                table[f"{title} | {name}"] = row
    return {"summary": summary_of(table)} | table


def summary_of(table: dict[str, Any]) -> dict[str, Any]:
    """Return what other parts of the project look up."""

    def against(words: str, way: str) -> float | None:
        rows = [row for name, row in table.items() if name.startswith(f"workload, 1 h 360p{way} | {words}")]
        return min((row["cpu ratio to ours"] for row in rows), default=None)

    summary: dict[str, Any] = {}
    for key, words in (
        ("workload_vs_qwen_vl_utils", "qwen-vl-utils"),
        ("workload_vs_cut_a_clip", "cut a clip"),
        ("workload_vs_torchcodec", "torchcodec"),
    ):
        summary[key] = against(words, "")
        summary[f"{key}_skim_read_once"] = against(words, ", skim read once")
    shares = [row["decoded"] / row["minimum"] for row in table.values() if "minimum" in row]
    summary["decoded_vs_minimum"] = round(max(shares), 4) if shares else None
    peers = [(name, row) for name, row in table.items() if " | timeloupe" not in name]
    slowest = min((row["cpu ratio to ours"] for _, row in peers), default=None)
    summary["least_ratio_of_any_peer"] = slowest
    return summary


def notes_of(done: dict[str, Any]) -> list[str]:
    """Return the sentences below the table."""
    failed = {job.split("|")[1]: found["why"] for job, found in done.items() if "why" in found}
    return [
        "cpu ratio to ours: CPU-seconds of the process and its children over those of timeloupe in the same turn; "
        "above 1 is slower than timeloupe. Every reader delivers the same number of frames at the same size.",
        "Compare ratios, not seconds: these depend on what else the machine did in that turn.",
        "growth MB: peak less what the process held after its imports. peak MB of a reader that starts other "
        "processes is the sum of their peaks.",
        "workload: 8 roll-outs of a skim of 128 frames and 3 crops of 10 s at 4 fps. 'skim read once': the others' "
        "skim is counted once and not 8 times. Ours keeps up to 256 MB of frames there (160 MB in the row of that "
        "name), which is most of its peak.",
        "decoded and minimum: frames that our decoder gave out, and the fewest that any exact decoder must decode.",
        "timeloupe, keyframe skim: skims show the nearest keyframes, so they are not the frames at those times.",
        "qwen-vl-utils delivers float32, which is not converted here. OpenCV's grab loop and the fps filter decode all "
        "frames of a span, so they are not run on every skim.",
        *[f"{name} did not run: {why}" for name, why in failed.items()],
    ]


COLOURS = {
    "timeloupe": "#1f6f8b", "torchcodec": "#b5651d", "decord": "#6a994e", "OpenCV": "#8a8a8a", "ffmpeg": "#7b2cbf",
    "qwen-vl-utils": "#c1121f", "cut a clip": "#e09f3e",
}  # fmt: skip


def plot(table: dict[str, Any], path: Path) -> None:
    """Draw every reader's ratio on every line, on a logarithmic axis."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = {name: row for name, row in table.items() if name != "summary"}
    titles = list(dict.fromkeys(name.split(" | ")[0] for name in rows))
    readers = [name for name in READERS if any(row.endswith(f" | {name}") for row in rows)]
    figure, axis = pyplot.subplots(figsize=(10, 0.5 * len(titles) + 2.4), constrained_layout=True)
    for name in readers:
        family = next(word for word in COLOURS if name.startswith(word))
        variants = [one for one in readers if one.startswith(family)]
        marker = "oD^svP"[variants.index(name) % 6]
        points = [
            (rows[f"{title} | {name}"]["cpu ratio to ours"], place)
            for place, title in enumerate(titles)
            if f"{title} | {name}" in rows
        ]
        size = 60 if name == FIRST else 36
        axis.scatter(
            *zip(*points, strict=True),
            s=size,
            marker=marker,
            color=COLOURS[family],
            label=name,
            alpha=0.85,
            lw=0,
        )
    axis.axvline(1, color=COLOURS["timeloupe"], lw=1, zorder=0)
    axis.set_xscale("log")
    ticks = [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50]
    values = [row["cpu ratio to ours"] for row in rows.values()]
    axis.set_xlim(min(values) * 0.8, max(values) * 1.25)
    shown = [tick for tick in ticks if min(values) * 0.8 <= tick <= max(values) * 1.25]
    axis.set_xticks(shown, [f"{tick:g}" for tick in shown])
    axis.minorticks_off()
    axis.set_yticks(range(len(titles)), titles, fontsize=9)
    axis.invert_yaxis()
    axis.grid(axis="x", color="#dddddd", lw=0.6)
    axis.set_axisbelow(True)
    axis.set_xlabel("CPU-seconds over those of timeloupe (right of 1: slower than timeloupe)")
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(fontsize=8, frameon=False, ncols=4, loc="outside lower center")
    figure.savefig(path, dpi=150)


def main() -> None:
    """Run what is missing in turns, print the table, record it if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument(
        "--python", default=str(ROOT / ".venv-peers" / "bin" / "python"), help="the peers' interpreter"
    )
    parser.add_argument(
        "--lines",
        nargs="+",
        help="lines whose name contains one of these words; default: all but three long ones",
    )
    parser.add_argument("--readers", nargs="+", choices=list(READERS), default=list(READERS))
    parser.add_argument(
        "--repeats", type=int, help="measurements of each line and reader (default: each line's own)"
    )
    parser.add_argument(
        "--record", action="store_true", help="write docs/results.* and docs/reader_speed.png"
    )
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    kept = work / "speed.json"
    done: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    words = arguments.lines or ()
    lines = [name for name in LINES if any(w in name for w in words)] or [
        name for name in LINES if name not in LONG
    ]
    for line_name in lines:
        line = LINES[line_name]
        clip = make_clip(work, line.clip)
        for turn in range(arguments.repeats or line.repeats):
            for name in [FIRST, *(one for one in arguments.readers if one != FIRST)]:
                job = f"{line_name}|{name}|{turn}"
                if job in done or not runs_on(name, line_name):
                    continue
                python = sys.executable if READERS[name].ours else arguments.python
                done[job] = measure_one(name, line, clip, python, work)
                kept.write_text(json.dumps(done, indent=1), encoding="utf-8")
                print(job, done[job], flush=True)
    minima = {
        line_name: minimum_decoded(make_clip(work, line.clip), reads_of(line))
        for line_name, line in LINES.items()
        if any(job.startswith(f"{line_name}|{FIRST}|") for job in done)
    }
    table = table_of(done, minima)
    for name, row in table.items():
        print(f"{name}: {row}")
    plot(table, (ROOT / "docs" if arguments.record else work) / "reader_speed.png")
    if arguments.record:
        record(
            "reader_speed", title="What reading frames costs", notes=notes_of(done), seeds=[17],
            command="python benchmarks/reader_speed.py --work WORK --record",
            n=len(done), figures=table, plots=["reader_speed.png"],
        )  # fmt: skip


if __name__ == "__main__":
    main()
