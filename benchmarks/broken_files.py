"""Broken files of every kind, each read under a deadline in a fresh process: what comes out, how soon, at what cost.

    python benchmarks/broken_files.py [--deadline 3] [--trials 6] [--record]

Two tables. Refusals: one row for each kind of file; the outcome is the frames that were shown right, or the error.
The stalled disks are real ones: a FUSE file system (:mod:`stalled_disk`; root and /dev/fuse, else the row says that it
was left out) and a worker stopped by SIGSTOP. Silent damage: one byte changed (light) or 2 KB overwritten (heavy) at a
random place of the media data; each of 60 frames is shown right, refused, shown with another frame's number, or shown
with pixels that differ (mean over a 16 x 16 block by more than 12 of 255).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
from record import ROOT, record

sys.path.insert(0, str(ROOT))
from tests.video.painting import paint, read_number, write_clip
from timeloupe.errors import VideoError
from timeloupe.video import isolate
from timeloupe.video.container import open_video, read_packets
from timeloupe.video.decode import Decoder
from timeloupe.video.index import load_index
from timeloupe.video.reader import VideoReader

NUM_FRAMES = 60
SIDE = 192
RATE = 25
GOP = {"g": "12", "bf": "2", "sc_threshold": "0"}
CODECS: dict[str, tuple[str, dict[str, str]]] = {
    "h264.mp4": ("libx264", GOP),
    "h264.mkv": ("libx264", GOP),
    "h264.ts": ("libx264", GOP),
    "hevc.mp4": ("libx265", {"x265-params": "keyint=12:bframes=2:log-level=none", "preset": "ultrafast"}),
    "hevc_hashed.mp4": (
        "libx265",
        {"x265-params": "keyint=12:bframes=2:hash=1:log-level=none", "preset": "ultrafast"},
    ),
    "vp9.mp4": ("libvpx-vp9", {"g": "12", "deadline": "realtime", "cpu-used": "8"}),
    "vp9.webm": ("libvpx-vp9", {"g": "12", "deadline": "realtime", "cpu-used": "8"}),
    "av1.mp4": ("libsvtav1", {"g": "12", "preset": "8", "crf": "12"}),
    "av1.mkv": ("libsvtav1", {"g": "12", "preset": "8", "crf": "12"}),
    "mpeg4.mp4": ("mpeg4", {"g": "12", "bf": "2"}),
    "mpeg4.mkv": ("mpeg4", {"g": "12", "bf": "2"}),
    "mpeg2.ts": ("mpeg2video", {"g": "12", "bf": "2"}),
    "mpeg2.mkv": ("mpeg2video", {"g": "12", "bf": "2"}),
}


def replaced(data: bytes, at: int, new: bytes) -> bytes:
    """Return ``data`` with the bytes from ``at`` on replaced."""
    return data[:at] + new + data[at + len(new) :]


def sound_only(path: Path) -> None:
    """Write a file with sound and no pictures."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        assert isinstance(stream, av.AudioStream)
        stream.layout = "mono"
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 16000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))


def make_files(folder: Path) -> dict[str, Path]:
    """Write one file of each kind; returns kind to path."""
    first, last, pieces = (
        textured(folder / f"{name}.mp4", "libx264", GOP, flags).read_bytes()
        for name, flags in (("first", "faststart"), ("last", ""), ("pieces", "frag_keyframe+empty_moov"))
    )
    ffv1 = write_clip(folder / "ffv1.avi", codec="ffv1", num_frames=4).path.read_bytes()
    jpeg = write_clip(
        folder / "jpeg.mov", codec="mjpeg", num_frames=4, pixel_format="yuvj420p"
    ).path.read_bytes()
    media = first.index(b"mdat")
    rng = np.random.default_rng(0)
    noise = bytearray(first)
    for at in rng.integers(media + 4, len(first), 40):
        noise[at] ^= 0xFF
    wide = (100_000).to_bytes(4, "little") * 2
    small = (128).to_bytes(4, "little") * 2
    sizes = first.index(b"stsz") + 12
    contents: dict[str, bytes] = {
        "empty": b"",
        "cut off, index first": first[: len(first) * 7 // 10],
        "cut off, index last": last[: len(last) * 7 // 10],
        "corrupt, light (1 byte)": replaced(first, media + 9000, bytes([first[media + 9000] ^ 0x55])),
        "corrupt, heavy (2 KB)": replaced(first, media + 9000, rng.bytes(2048)),
        "corrupt, all over (40 bytes)": bytes(noise),
        "text called .mp4": b"This is not a video.\n" * 50,
        "zero duration (header, no frames)": pieces[: pieces.index(b"moof") - 4],
        "header of 2 billion frames": replaced(first, sizes, (2**31 - 1).to_bytes(4, "big")),
        "100,000 x 100,000 pixels, header": ffv1.replace(small, wide),
        "65,500 x 65,500 pixels, inside": jpeg.replace(
            b"\x08\x00\x80\x00\x80\x03", b"\x08\xff\xdc\xff\xdc\x03"
        ),
    }
    files = {"missing": folder / "missing.mp4", "folder": folder}
    for number, (kind, data) in enumerate(contents.items()):
        files[kind] = folder / f"kind{number}.mp4"
        files[kind].write_bytes(data)
    files["sound only"] = folder / "sound.mp4"
    sound_only(files["sound only"])
    files["FIFO"] = folder / "fifo.mp4"
    os.mkfifo(files["FIFO"])
    files["worker stopped (SIGSTOP)"] = folder / "first.mp4"
    return files


def watch_memory(peaks: dict[int, int]) -> None:
    """Note the highest memory of each worker, in KB, for ever."""
    while True:
        for pid in isolate.worker_pids():
            try:
                lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
            except OSError:
                continue
            peaks[pid] = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)
        time.sleep(0.01)


def read_one(path: str, deadline: float, stop: bool) -> dict[str, Any]:
    """Read 12 frames over a file; returns outcome, seconds and peak memory of this process and its worker."""
    peaks: dict[int, int] = {}
    threading.Thread(target=watch_memory, args=(peaks,), daemon=True).start()
    if stop:
        load_index(path, deadline_seconds=60)
        for pid in isolate.worker_pids():
            os.kill(pid, 19)
    start = time.monotonic()
    try:
        with VideoReader(path, deadline_seconds=deadline) as reader:
            times = [reader.info.duration_seconds * (n + 0.5) / 12 for n in range(12)]
            pictures = reader.read(times, (64, 64))
            numbers = [round(at * RATE) for at in pictures.at_seconds]
        right = sum(read_number(p) == n for p, n in zip(pictures.pixels, numbers, strict=True))
        outcome = f"{right} of {len(times)} frames right, up to {times[-1]:.1f} s"
    except VideoError as error:
        outcome = str(error).replace(repr(path), "FILE")
    seconds = time.monotonic() - start
    mine = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    megabytes = round((mine + max(peaks.values(), default=0)) / 1024)
    return {"outcome": outcome, "seconds": round(seconds, 2), "peak MB": megabytes}


def read_afresh(path: Path, deadline: float, stop: bool = False) -> dict[str, Any]:
    """Return what :func:`read_one` says in a process of its own."""
    words = [
        sys.executable,
        __file__,
        "--one",
        str(path),
        "--deadline",
        str(deadline),
        *(["--stop"] if stop else []),
    ]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120 + 4 * deadline)
    if done.returncode:
        return {"outcome": "DIED: " + done.stderr[-300:], "seconds": None, "peak MB": None}
    return json.loads(done.stdout)


def stalled(file: Path, stall_at: int, deadline: float) -> dict[str, Any]:
    """Read a file from a disk that stalls."""
    folder = file.parent / f"stalled{stall_at}"
    folder.mkdir()
    words = [
        sys.executable,
        str(Path(__file__).with_name("stalled_disk.py")),
        str(folder),
        str(file),
        str(stall_at),
    ]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as disk:
        assert disk.stdout is not None and disk.stderr is not None
        if disk.stdout.readline().strip() != "mounted":
            return {
                "outcome": "left out: " + disk.stderr.read().strip()[-100:],
                "seconds": None,
                "peak MB": None,
            }
        return read_afresh(folder / "stalled.mp4", deadline)


def refusals(folder: Path, deadline: float) -> dict[str, dict[str, Any]]:
    """Return the first table."""
    files = make_files(folder)
    rows = {kind: read_afresh(path, deadline, stop="SIGSTOP" in kind) for kind, path in files.items()}
    half = (folder / "first.mp4").stat().st_size // 2
    rows["stalled disk, in stat()"] = stalled(folder / "first.mp4", -1, deadline)
    rows["stalled disk, in the header"] = stalled(folder / "first.mp4", 0, deadline)
    rows["stalled disk, in the middle"] = stalled(folder / "first.mp4", half, deadline)
    return rows


def textured(path: Path, codec: str, options: dict[str, str], flags: str = "") -> Path:
    """Write numbered frames over a moving texture, so that most bytes are picture and not syntax."""
    rng = np.random.default_rng(0)
    noise = np.kron(rng.normal(0, 22, (SIDE // 4, SIDE // 4)), np.ones((4, 4)))
    with av.open(str(path), "w", options={"movflags": flags} if flags else {}) as container:
        stream = container.add_stream(codec, rate=RATE, options={"threads": "1", **options})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv420p"
        for number in range(NUM_FRAMES):
            picture = (
                paint(number, (SIDE, SIDE)) + np.roll(noise, (3 * number, 2 * number), (0, 1))[:, :, None]
            )
            frame = av.VideoFrame.from_ndarray(np.clip(picture, 0, 255).astype(np.uint8), "rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def shown(path: Path, times: list[float]) -> dict[int, np.ndarray]:
    """Return the pixels shown at those ``times`` that are not refused, by the time's number."""
    wanted: dict[int, list[int]] = {}
    found: dict[int, np.ndarray] = {}
    try:
        index = load_index(path)
        for number, at in enumerate(times):
            try:
                wanted.setdefault(index.frames_at([at])[0], []).append(number)
            except VideoError:
                pass  # refused
        decoder = Decoder(index, str(path))
        for frame, pixels in decoder.decode(sorted(wanted), (SIDE, SIDE)):
            found |= dict.fromkeys(wanted[frame], pixels)
    except VideoError:
        pass  # what did not come out is refused
    return found


def differs(a: np.ndarray, b: np.ndarray) -> bool:
    """Return whether some 16 x 16 block is off by more than 12 on average."""
    apart = np.abs(a.astype(np.int16) - b).mean(axis=2)
    return apart.reshape(SIDE // 16, 16, SIDE // 16, 16).mean(axis=(1, 3)).max() > 12


def silent_damage(folder: Path, trials: int) -> dict[str, dict[str, Any]]:
    """Return the second table: counts of frames."""
    rows: dict[str, dict[str, Any]] = {}
    for name in CODECS:
        path = textured(folder / name, *CODECS[name])
        data = path.read_bytes()
        times = (load_index(path).times_N + 0.02).tolist()
        clean = shown(path, times)
        assert [read_number(clean[n]) for n in range(NUM_FRAMES)] == list(range(NUM_FRAMES)), name
        container, stream = open_video(path)
        with container:
            places = [(p.pos, p.pos + p.size) for p in read_packets(container, stream) if p.pos is not None]
        low, high = min(places)[0], max(end for _, end in places)
        damages: dict[str, Callable[[np.random.Generator], bytes]] = {
            "light": lambda rng: bytes([int(rng.integers(256))]),
            "heavy": lambda rng: rng.bytes(2048),
        }
        for kind, new_bytes in damages.items():
            counts = dict.fromkeys(("right", "refused", "wrong number", "pixels differ"), 0)
            for trial in range(trials):
                rng = np.random.default_rng(trial)
                new = new_bytes(rng)
                bad = folder / f"bad{trial}_{kind}_{name}"
                bad.write_bytes(replaced(data, int(rng.integers(low, high - len(new))), new))
                pictures = shown(bad, times)
                for number in range(NUM_FRAMES):
                    picture = pictures.get(number)
                    if picture is None:
                        counts["refused"] += 1
                    elif read_number(picture) != number:
                        counts["wrong number"] += 1
                    else:
                        counts["pixels differ" if differs(picture, clean[number]) else "right"] += 1
                bad.unlink()
            rows[f"{name}, {kind}"] = counts
    return rows


def main() -> None:
    """Run both tables and print them; write them down with ``--record``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--deadline", type=float, default=3.0)
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--stop", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(read_one(given.one, given.deadline, given.stop)))
        return
    with tempfile.TemporaryDirectory() as name:
        tables = {"broken_files": refusals(Path(name), given.deadline)}
        tables["silent_damage"] = silent_damage(Path(name), given.trials)
    for rows in tables.values():
        for kind, row in rows.items():
            print(f"{kind:36}", *(f"{key}: {value}" for key, value in row.items()), sep="  ")
    if given.record:
        command = f"python benchmarks/broken_files.py --deadline {given.deadline:g} --trials {given.trials} --record"
        record(
            "broken_files", title="Broken files under a deadline", command=command, seeds=[0],
            n=len(tables["broken_files"]), figures=tables["broken_files"],
            notes=[
                f"The deadline is {given.deadline:g} s without a sign of life; starting a worker is part of the time.",
                "Peak MB is this process and its worker together.",
            ],
        )  # fmt: skip
        record(
            "silent_damage", title="Damage at random places: what is shown", command=command,
            seeds=list(range(given.trials)), n=given.trials * NUM_FRAMES, figures=tables["silent_damage"],
            notes=[
                "Counts of frames; light changes one byte, heavy overwrites 2 KB of the media data.",
                "VP9, and HEVC without picture hashes, carry nothing that a decoder could check pictures against.",
            ],
        )  # fmt: skip


if __name__ == "__main__":
    main()
