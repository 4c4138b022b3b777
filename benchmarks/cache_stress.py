"""The frame cache under load: wrong frames, hit rates, memory; then the tier on disk while its writers are killed.

``python benchmarks/cache_stress.py [--requests N] [--kill-seconds S] [--record]``

Ten clips whose frames say their own number are read by four threads: skims of the whole clip and crops of parts of
it, in several sizes, each thread with a reader of its own per request and all with one cache. Every frame of every
request is compared with the truth. The level before the cache is that of the same requests without one.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.record import record  # noqa: E402

from tests.video.painting import Clip, read_number, write_clip  # noqa: E402
from timeloupe.video.cache import FrameCache  # noqa: E402
from timeloupe.video.disk_cache import DiskCache  # noqa: E402
from timeloupe.video.index import load_index  # noqa: E402
from timeloupe.video.reader import VideoReader  # noqa: E402
from timeloupe.video.sampling import uniform_times  # noqa: E402

NUM_FILES, NUM_THREADS, FPS, SECONDS = 10, 4, 10, 60
SIZES = ((28, 28), (112, 112), (224, 224), (320, 240), (448, 448), (640, 480))


@dataclass
class Tally:
    """What came of requests."""

    requests: int = 0
    frames: int = 0
    wrong: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, frames: int, wrong: int) -> None:
        """Count one request."""
        with self.lock:
            self.requests += 1
            self.frames += frames
            self.wrong += wrong


def main() -> None:
    """Run the two parts and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=1000, help="a thread")
    parser.add_argument("--cache-bytes", type=int, default=200_000_000)
    parser.add_argument("--kill-seconds", type=float, default=30.0)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--part", choices=("memory", "disk", "writer"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.part == "writer":
        write_for_ever(arguments.folder, arguments.seed)
    elif arguments.part:
        print(stress(arguments))
    else:
        with tempfile.TemporaryDirectory() as name:
            figures = all_parts(arguments, Path(name))
        if arguments.record:
            save(arguments, figures)


def all_parts(arguments: argparse.Namespace, folder: Path) -> dict[str, dict[str, Any]]:
    """Return the figures of each part; memory is measured in a fresh process each."""
    write_clips(folder)
    figures: dict[str, dict[str, Any]] = {}
    for name, part in (("memory alone", "memory"), ("memory and disk", "disk"), ("disk, second run", "disk")):
        command = [
            sys.executable, __file__, "--part", part, "--folder", str(folder), "--requests", str(arguments.requests),
            "--cache-bytes", str(arguments.cache_bytes), "--seed", str(arguments.seed),
        ]  # fmt: skip
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        figures[name] = eval_figures(done.stdout)
        print(name, figures[name], flush=True)
    figures["writers killed"] = kill_writers(folder, arguments.kill_seconds)
    print("writers killed", figures["writers killed"], flush=True)
    return figures


def eval_figures(text: str) -> dict[str, Any]:
    """Return the figures that :func:`stress` printed."""
    pairs = (line.split(": ", 1) for line in text.strip().splitlines())
    return {name: float(value) if "." in value else int(value) for name, value in pairs}


def write_clips(folder: Path) -> None:
    """Write the clips: B-frames, a keyframe every 2.4 seconds."""
    for number in range(NUM_FILES):
        options = {"g": "24", "sc_threshold": "0", "bf": "2", "preset": "ultrafast"}
        path = folder / f"{number}.mp4"
        write_clip(path, num_frames=FPS * SECONDS, fps=FPS, size_wh=(320, 240), options=options)


def read_clips(folder: Path) -> list[Clip]:
    """Return the clips with the times that the files have."""
    paths = (folder / f"{number}.mp4" for number in range(NUM_FILES))
    return [Clip(path, tuple(load_index(path).times_N.tolist())) for path in paths]


def one_request(clips: list[Clip], cache: FrameCache, rng: random.Random, tally: Tally) -> None:
    """Read a skim or a crop of a clip and compare every frame with the truth."""
    clip = rng.choice(clips)
    size = rng.choice(SIZES)
    if rng.random() < 0.3:
        times = uniform_times(0, SECONDS, rng.choice((8, 16, 32)))
    else:
        start = rng.randrange(SECONDS - 8)
        times = uniform_times(start, start + rng.choice((2, 4, 8)), rng.choice((4, 8, 16)))
    with VideoReader(clip.path, cache) as reader:
        pixels = reader.read(times, size).pixels
    found = [read_number(picture) for picture in pixels]
    # One frame every 1/FPS seconds: counting is the truth here, without the index under test.
    wrong = sum(number != int(at * FPS + 1e-6) for number, at in zip(found, times, strict=True))
    tally.add(len(times), wrong)


def load(clips: list[Clip], cache: FrameCache, requests: int, seed: int) -> Tally:
    """Put the load on the cache: ``requests`` on each of the threads."""
    tally = Tally()

    def work(thread: int) -> None:
        rng = random.Random(f"{seed} {thread}")
        for _ in range(requests):
            one_request(clips, cache, rng, tally)

    with ThreadPoolExecutor(NUM_THREADS) as pool:
        list(pool.map(work, range(NUM_THREADS)))
    return tally


def peak_bytes() -> int:
    """Return the peak resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def resident_bytes() -> int:
    """Return the resident memory of this process now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def stress(arguments: argparse.Namespace) -> str:
    """Return the figures of one part as lines."""
    clips = read_clips(arguments.folder)
    load(clips, FrameCache(0), arguments.requests, arguments.seed)
    before, at_rest = peak_bytes(), resident_bytes()
    disk = DiskCache(arguments.folder / "frames", 2 * 2**30) if arguments.part == "disk" else None
    cache = FrameCache(arguments.cache_bytes, disk)
    began, processor = time.perf_counter(), time.process_time()
    tally = load(clips, cache, arguments.requests, arguments.seed)
    figures = cache.figures()
    lines = {
        "requests": tally.requests,
        "frames": tally.frames,
        "wrong frames": tally.wrong,
        "hit rate": f"{figures['hit_rate']:.4f}",
        "memory hits": figures["memory_hits"],
        "disk hits": figures["disk_hits"],
        "misses": figures["misses"],
        "held MB": f"{figures['num_bytes'] / 1e6:.1f}",
        "peak RSS growth MB": f"{(peak_bytes() - before) / 1e6:.1f}",
        "RSS growth at rest MB": f"{(resident_bytes() - at_rest) / 1e6:.1f}",
        "RSS before MB": f"{before / 1e6:.1f}",
        "CPU seconds": f"{time.process_time() - processor:.1f}",
        "wall seconds": f"{time.perf_counter() - began:.1f}",
    }
    return "\n".join(f"{name}: {value}" for name, value in lines.items())


def write_for_ever(folder: Path, seed: int) -> None:
    """Fill the tier on disk until killed; a wrong frame ends the process with exit code 9."""
    clips, rng, tally = read_clips(folder), random.Random(seed), Tally()
    while not tally.wrong:
        one_request(clips, FrameCache(0, DiskCache(folder / "killed", 50_000_000)), rng, tally)
    sys.exit(9)


def kill_writers(folder: Path, seconds: float) -> dict[str, Any]:
    """Kill writers at random moments while this process reads the same folder; return what was seen."""
    clips, rng, tally = read_clips(folder), random.Random(0), Tally()
    disk = DiskCache(folder / "killed", 50_000_000)
    cache = FrameCache(0, disk)
    deadline = time.monotonic() + seconds
    kills, wrong_elsewhere, most = 0, 0, 0
    while time.monotonic() < deadline:
        writers = [
            subprocess.Popen(
                [
                    sys.executable,
                    __file__,
                    "--part",
                    "writer",
                    "--folder",
                    str(folder),
                    "--seed",
                    str(kills + n),
                ]
            )
            for n in range(2)
        ]
        stop = time.monotonic() + 1 + rng.random() * 2
        while time.monotonic() < stop:
            one_request(clips, cache, rng, tally)
        for writer in writers:
            os.kill(writer.pid, signal.SIGKILL)
            wrong_elsewhere += writer.wait() == 9
            kills += 1
        held = sum(entry.stat().st_size for entry in os.scandir(disk.folder))
        most = max(most, held)
    figures = cache.figures()
    return {
        "requests": tally.requests,
        "frames": tally.frames,
        "wrong frames": tally.wrong + wrong_elsewhere,
        "hit rate": round(figures["hit_rate"], 4),
        "disk hits": figures["disk_hits"],
        "misses": figures["misses"],
        "kills": kills,
        "most on disk MB": round(most / 1e6, 1),
        "temporary files left": len(list(disk.folder.glob("*.tmp"))),
    }


def save(arguments: argparse.Namespace, figures: dict[str, dict[str, Any]]) -> None:
    """Write the figures to docs/results.json."""
    record(
        "reader_cache",
        title="Frame cache under load",
        command=f"python benchmarks/cache_stress.py --requests {arguments.requests}",
        seeds=[arguments.seed],
        n=sum(row["requests"] for row in figures.values()),
        figures=figures,
        notes=[
            f"{NUM_THREADS} threads, {NUM_FILES} clips, skims and crops in {len(SIZES)} sizes, every frame compared "
            f"with the number painted in it. Bound of the memory tier: {arguments.cache_bytes / 1e6:.0f} MB; growth is "
            "peak resident memory above that of the same load without a cache.",
            "Writers killed: two processes at a time fill one folder (bound 50 MB) and are killed with SIGKILL after "
            "1 to 3 seconds while a third reads and writes there.",
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
