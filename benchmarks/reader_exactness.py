"""How often is the frame that a reader gives for a time the wrong one?

    python benchmarks/reader_exactness.py --work WORK [--python PEERS] [--readers NAME ...] [--record]

Files: the real clips of the shared evaluation data, whose presentation times were listed by ffprobe, and the numbered
clips that the tests write (``tests/video/conftest.py``). Times: 200 drawn at random, and every boundary: each frame's
start (a microsecond late, so that no rounding of a float decides), a millisecond before it and a millisecond after it.
The right frame at time t is the last one whose presentation time is <= t, counted from the first.

Which frame came back is told by its pixels. A numbered clip carries the number as a pattern. A real clip is decoded
once from end to end; a returned frame and all of these are shrunk to 64 x 64 grey values. It counts as right if no
other frame is nearer than the right one by more than 0.02 grey levels on average: so frames that look the same as the
right one are never counted as wrong, and readers may convert colours in their own way. Our own reader is also held to
the bytes of that decode.

- *wrong*: another frame. *refused*: an error, a crash, a hang (300 s a file). *not upright*: the right frame, not
  turned as the file says. *other stream*: a frame of the smaller of two videos in one file, which is no error but
  another choice than ours.
- Readers that know frame numbers only are asked for ``floor(t * fps)``: see ``reader_peers.py``.
- qwen-vl-utils cannot be asked for a time. It is asked for 64 frames of the whole file and, if it has 40, for 8 frames
  of 17 spans; each frame is compared with the one at the time it says (frame number / fps), which is what a model is
  told. Half a millisecond is forgiven.

A reader gets one process for each file. What is finished is kept in ``WORK/exactness.json``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

RANDOM_TIMES = 200
SIDE = 64
TOLERANCE = 0.02
NEAR = 60
BATCH = 96
SMALL_BATCH = 8
LIMIT_SECONDS = 300
NUDGE_SECONDS = 0.001
ROUNDING_SECONDS = 1e-6
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENCV_FFMPEG_CAPTURE_OPTIONS": "threads;1"}
DAMAGED = "corrupted.mp4"
EXACT_READERS = (
    "timeloupe",
    "timeloupe, worker process",
    "torchcodec",
    "torchcodec, approximate",
    "decord",
    "OpenCV, seek",
    "qwen-vl-utils (torchcodec)",
    "qwen-vl-utils (decord)",
)
COUNTS = ("checks", "wrong", "wrong at boundaries", "refused", "not upright", "other stream")
SMALL_STREAM, SMALL_STREAM_FPS = (64, 64), 15


def signature(pixels: Any) -> np.ndarray:
    """Return a picture as (64, 64) grey values."""
    pixels = np.asarray(pixels)
    if pixels.dtype != np.uint8:
        pixels = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    grey = Image.fromarray(np.ascontiguousarray(pixels)).convert("L").convert("F")
    return np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX))


# -- in the project's environment: truths ------------------------------------------------------------------------------


def make_truth(path: Path, seconds: Sequence[float], numbered: bool, target: Path) -> None:
    """Decode a file from end to end and keep each frame's signature and checksum, in presentation order.

    ``seconds`` are as listed, with six decimals; a listed time must be that of a tick to within these.
    """
    from timeloupe.video.container import decode_or_none, open_video, read_packets
    from timeloupe.video.image import orientation_of, upright

    frames = []
    container, stream = open_video(path)
    base = float(stream.time_base or 1)
    with container:
        for packet in (*read_packets(container, stream), None):
            for frame in decode_or_none(stream, packet) or ():
                pixels = upright(frame.to_ndarray(format="rgb24"), orientation_of(frame))
                frames.append((signature(pixels), hashlib.sha1(pixels.tobytes()).digest()))
    if len(frames) != len(seconds):
        raise RuntimeError(f"{path.name}: {len(frames)} frames decoded, {len(seconds)} listed")
    exact = np.array(seconds)
    ticks = np.rint(exact / base)
    if not numbered and np.abs(ticks * base - exact).max() < 2 * ROUNDING_SECONDS:
        exact = ticks * base
    np.savez(
        target,
        seconds=exact,
        signatures=np.stack([one[0] for one in frames]),
        digests=np.frombuffer(b"".join(one[1] for one in frames), np.uint8).reshape(-1, 20),
        numbered=np.array(numbered),
    )


def prepare(work: Path, shared: Path) -> dict[str, list[tuple[Path, Path]]]:
    """Return video and truth of every file in both sets; writes what is missing."""
    from tests.video.conftest import KINDS, write_kind
    from timeloupe.video.index import load_index

    sets: dict[str, list[tuple[Path, Path]]] = {"real": [], "numbered": []}
    for name in ("truths", "clips"):
        (work / name).mkdir(parents=True, exist_ok=True)
    for listing in sorted((shared / "evaldata" / "videos" / "frame_truth" / "pts").glob("*.json")):
        truth = json.loads(listing.read_text(encoding="utf-8"))
        if truth["video"] == DAMAGED:
            continue
        path, target = listing.parents[2] / truth["video"], work / "truths" / f"{truth['video']}.npz"
        if not target.exists():
            stamps = [float(frame["pts_time"]) for frame in truth["frames"]]
            make_truth(path, [stamp - stamps[0] for stamp in stamps], False, target)
        sets["real"].append((path, target))
    for name in KINDS:
        path, target = work / "clips" / name, work / "truths" / f"numbered.{name}.npz"
        if not target.exists():
            clip = write_kind(work / "clips", name)
            # Millisecond containers round: the file's own times are the truth, if they are those that were written.
            seconds = load_index(path).times_N
            if len(seconds) != len(clip.seconds) or np.abs(seconds - np.array(clip.seconds)).max() > 0.0011:
                raise RuntimeError(f"{name}: its times are not those that were written")
            make_truth(path, seconds.tolist(), True, target)
        sets["numbered"].append((path, target))
    return sets


# -- in a reader's process: one reader, one file -----------------------------------------------------------------------


def verdict(pixels: Any, expected: int, time: float, truth: dict[str, np.ndarray], two_videos: bool) -> str:
    """Return ``right``, ``wrong``, ``not upright`` or ``other stream``."""
    seen = signature(pixels)
    if two_videos and tuple(pixels.shape[:2]) == SMALL_STREAM:
        return "other stream"
    first, last = max(0, expected - NEAR), expected + NEAR + 1
    near = truth["signatures"][first:last]
    if bool(truth["numbered"]):
        from tests.video.painting import read_number

        number = read_number(seen)
        if number == expected:
            return "right"
        if two_videos and number == int(time * SMALL_STREAM_FPS + 0.001):  # qwen-vl-utils has resized it
            return "other stream"
    elif _is_nearest(seen, near, expected - first):
        return "right"
    turned = [np.rot90(seen, turns) for turns in (1, 2, 3)]
    if bool(truth["numbered"]):
        return "not upright" if any(read_number(one) == expected for one in turned) else "wrong"
    distance = [np.abs(near[expected - first] - one).mean() for one in (seen, *turned)]
    best = int(np.argmin(distance))
    return "not upright" if best and _is_nearest(turned[best - 1], near, expected - first) else "wrong"


def _is_nearest(seen: np.ndarray, near: np.ndarray, expected: int) -> bool:
    distances = np.abs(near - seen).mean(axis=(1, 2))
    return bool(distances[expected] <= distances.min() + TOLERANCE)


def asked_times(seconds: np.ndarray, name: str) -> tuple[list[float], list[float]]:
    """Return the random times and the boundaries, each ascending."""
    gaps = np.diff(seconds)
    end = float(seconds[-1] + (np.median(gaps) if len(gaps) else 0.01) * 0.9)
    rng = random.Random(name)
    drawn = sorted(rng.random() * end for _ in range(RANDOM_TIMES))
    edges = [start + ROUNDING_SECONDS for start in seconds.tolist()]
    edges += [start - NUDGE_SECONDS for start in seconds[1:].tolist()]
    edges += [start + NUDGE_SECONDS for start in seconds.tolist() if start + NUDGE_SECONDS < end]
    return drawn, sorted(edges)


def check_one(name: str, path: str, truth_file: str, counts_file: Path) -> None:
    """Count one reader's frames on one file; counts are written after every batch, for a process that dies."""
    import reader_peers

    with np.load(truth_file) as kept:
        truth = dict(kept)
    reader = reader_peers.READERS[name]
    counts = dict.fromkeys((*COUNTS, "pixels differ"), 0)
    counts_file.write_text(json.dumps(counts), encoding="utf-8")
    drawn, edges = asked_times(truth["seconds"], Path(path).name)
    spans = _spans(truth["seconds"]) if name.startswith("qwen") else None
    batches = [("", times) for times in spans or _batches(drawn)]
    if spans is None:
        batches += [(" at boundaries", times) for times in _batches(edges)]
    while batches:
        where, times = batches.pop(0)
        try:
            frames, told = reader.read(path, times, None)
        except Exception as error:
            if spans is None and len(times) > SMALL_BATCH:
                batches[:0] = [(where, part) for part in _batches(times, SMALL_BATCH)]
                continue
            counts["refused"] += len(times)
            counts["why"] = f"{type(error).__name__}: {error}"[:200]
        else:
            for row, time in enumerate(times if spans is None else told):
                forgiven = 1e-6 if spans is None else 0.0005
                expected = int(np.searchsorted(truth["seconds"], time + forgiven, side="right")) - 1
                said = verdict(frames[row], max(expected, 0), time, truth, Path(path).stem == "two_videos")
                if said == "wrong":
                    counts["wrong" + where] += 1
                elif said != "right":
                    counts[said] += 1
                if reader.ours:
                    digest = hashlib.sha1(np.ascontiguousarray(frames[row]).tobytes()).digest()
                    counts["pixels differ"] += digest != truth["digests"][expected].tobytes()
        counts["checks"] += len(times)
        counts_file.write_text(json.dumps(counts), encoding="utf-8")


def _batches(times: list[float], length: int = BATCH) -> list[list[float]]:
    return [times[start : start + length] for start in range(0, len(times), length)]


def _spans(seconds: np.ndarray) -> list[list[float]]:
    """Return the centres of even cells: of the whole file, and of 17 spans in it."""
    end = float(seconds[-1] + np.median(np.diff(seconds))) if len(seconds) > 1 else 0.1
    count = max(2, min(64, len(seconds) // 2 * 2))
    cells = [(0.0, end / count, count)]
    rng = random.Random(5)
    if len(seconds) >= 40:
        step = max(1.5 * end / len(seconds), end / 40)
        cells += [(rng.uniform(2 * step, end - 9 * step), step, 8) for _ in range(17)]
    return [[start + step * (number + 0.5) for number in range(count)] for start, step, count in cells]


# -- the study ---------------------------------------------------------------------------------------------------------


def check_all(name: str, jobs_file: str) -> None:
    """Check files in turn, each in a process forked off this one, which has imported what the reader needs."""
    import reader_peers

    reader_peers.load(reader_peers.READERS[name])
    for path, truth, counts_file in json.loads(Path(jobs_file).read_text(encoding="utf-8")):
        child = os.fork()
        if child == 0:
            try:
                check_one(name, path, truth, Path(counts_file))
            except BaseException as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        latest, status = time.monotonic() + LIMIT_SECONDS, None
        while status is None and time.monotonic() < latest:
            ended, how = os.waitpid(child, os.WNOHANG)
            status = os.waitstatus_to_exitcode(how) if ended else None
            time.sleep(0.02)
        if status is None:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        died = f"not done after {LIMIT_SECONDS} s" if status is None else status and f"ended with {status}"
        print(json.dumps([path, counts_file, died or ""]), flush=True)


def run_reader(
    name: str, python: str, files: list[tuple[Path, Path]], work: Path
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the counts of one reader on each file as they are done."""
    jobs = work / "jobs.json"
    lines = [(str(path), str(truth), str(work / f"counts-{n}.json")) for n, (path, truth) in enumerate(files)]
    jobs.write_text(json.dumps(lines), encoding="utf-8")
    words = [python, __file__, "--work", str(work), "--all", name, str(jobs)]
    truths = dict(files)
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, text=True, env={**os.environ, **ONE_THREAD}
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if not line.startswith("["):
                continue
            named, counts_name, died = json.loads(line)
            path, counts_file = Path(named), Path(counts_name)
            found = json.loads(counts_file.read_text(encoding="utf-8")) if counts_file.exists() else {}
            counts_file.unlink(missing_ok=True)
            counts = {**dict.fromkeys((*COUNTS, "pixels differ"), 0), **found}
            if died:
                with np.load(truths[path]) as kept:
                    seconds = kept["seconds"]
                asked = _spans(seconds) if name.startswith("qwen") else asked_times(seconds, path.name)
                counts["refused"] += sum(map(len, asked)) - counts["checks"]
                counts |= {"checks": sum(map(len, asked)), "why": died}
            yield path, counts
    if process.returncode:
        raise RuntimeError(
            f"the process of {name} ended with {process.returncode}: is {python!r} the right one?"
        )


def collect(done: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the table: a row for each set and reader."""
    table: dict[str, Any] = {}
    for key in ("real", "numbered"):
        for name in EXACT_READERS:
            rows = [counts for job, counts in done.items() if job.startswith(f"{key}|{name}|")]
            if rows:
                row: dict[str, Any] = {"files": len(rows)} | {
                    column: sum(counts.get(column, 0) for counts in rows) for column in COUNTS
                }
                row["files with wrong frames"] = sum(
                    counts["wrong"] + counts["wrong at boundaries"] > 0 for counts in rows
                )
                row["pixels differ"] = (
                    sum(counts["pixels differ"] for counts in rows) if name.startswith("timeloupe") else None
                )
                table[f"{key} clips, {name}"] = row
    return table


NOTES = [
    "wrong: at random times; wrong at boundaries: at each frame's start and a millisecond before and after it.",
    "Frames that look the same as the right one (mean difference at 64 x 64 at most 0.02 grey levels) are not wrong.",
    "Readers that know frame numbers only (decord, OpenCV) are asked for floor(t x fps), as their users do.",
    "qwen-vl-utils chooses its frames itself; each is compared with the frame at the time it reports for it. Its third "
    "backend, torchvision, does not run: current torchvision no longer has read_video.",
    "refused: an error, a crash or a hang; one refused frame refuses its batch of up to 8.",
    "other stream: of two videos in one file the smaller one was read, which is another choice and no error.",
    "The numbered clips are odd on purpose. Several do not say how long their last frame lasts: torchcodec then takes "
    "a frame rate that is slightly off, and with it all times that qwen-vl-utils reports are.",
    "pixels differ: frames of ours whose bytes are not those of plain decoding from end to end.",
]


def main() -> None:
    """Run what is missing, print the table, record it if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument(
        "--python", default=str(ROOT / ".venv-peers" / "bin" / "python"), help="the peers' interpreter"
    )
    parser.add_argument("--readers", nargs="+", choices=EXACT_READERS, default=list(EXACT_READERS))
    parser.add_argument("--files", nargs="+", help="only files whose name contains one of these")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--all", nargs=2, help="internal: one reader, the files of a list")
    arguments = parser.parse_args()
    if arguments.all:
        check_all(*arguments.all)
        return
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    kept = work / "exactness.json"
    done = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    sets = prepare(work, arguments.shared.resolve())
    for name in arguments.readers:
        for key, files in sets.items():
            left = [
                file
                for file in files
                if f"{key}|{name}|{file[0].name}" not in done
                and (not arguments.files or any(word in file[0].name for word in arguments.files))
            ]
            python = sys.executable if name.startswith("timeloupe") else arguments.python
            for path, counts in run_reader(name, python, left, work) if left else ():
                job = f"{key}|{name}|{path.name}"
                done[job] = counts
                kept.write_text(json.dumps(done, indent=1), encoding="utf-8")
                print(job, counts, flush=True)
    table = collect(done)
    for name, row in table.items():
        print(f"{name}: {row}")
    if arguments.record:
        from record import record

        record(
            "reader_exactness", title="Which reader gives the right frame", notes=NOTES, seeds=[5],
            command="python benchmarks/reader_exactness.py --work WORK --record",
            n=sum(row["checks"] for row in table.values()), figures=table,
        )  # fmt: skip


if __name__ == "__main__":
    main()
