"""The video readers that are compared: one small function each, and the process that measures one of them.

    python benchmarks/reader_peers.py READER JOB.json     (a line of JSON on standard output)

A function takes a path, ascending times in seconds and a target size, and returns the frames as an (N, H, W, 3) array
and the times that the reader itself says they are from, or ``None`` where it does not say. Each calls its library as
that library's users do. Libraries that know only frame numbers get ``floor(t * fps)``, with a float's rounding
forgiven; qwen-vl-utils and FFmpeg's fps filter get the span and the number of frames and choose the times themselves.

This module runs in two environments, so it imports nothing but the standard library and numpy at its top.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Given = tuple[Any, "list[float] | None"]
Size = tuple[int, int] | None

_DECODED: list[int] = []
_SHARED: list[bool] = []
_PATCH = 14


@functools.cache
def _memory(disk: str = "", megabytes: int = 256) -> Any:
    """Return one cache for all reads of a workload; a job of single reads keeps nothing, like everyone else."""
    from timeloupe.video.cache import FrameCache

    if not any(_SHARED):
        return None
    if not disk:
        return FrameCache(megabytes * 2**20)
    from timeloupe.video.disk_cache import DiskCache

    return FrameCache(megabytes * 2**20, disk=DiskCache(disk, 2**34))


def _ours(path: str, times: Sequence[float], size: Size, cache: Any, **options: Any) -> Given:
    from timeloupe.video.reader import VideoReader

    with VideoReader(path, cache, **options) as reader:
        found = reader.read(times, size)
        _DECODED.append(reader.frames_decoded)
    return found.pixels, list(found.at_seconds)


def timeloupe(path: str, times: Sequence[float], size: Size) -> Given:
    return _ours(path, times, size, _memory())


def timeloupe_no_cache(path: str, times: Sequence[float], size: Size) -> Given:
    return _ours(path, times, size, None)


def timeloupe_keyframes(path: str, times: Sequence[float], size: Size) -> Given:
    """A skim of the nearest keyframes (as often as they are nearest); a crop is read exactly."""
    from timeloupe.video.reader import VideoReader

    if len(times) > 1 and times[0] <= times[1] - times[0]:
        with VideoReader(path) as reader:
            near = np.array(reader.keyframes_near(times))
        times = [float(near[np.abs(near - time).argmin()]) for time in times]
    return _ours(path, times, size, _memory())


def timeloupe_worker(path: str, times: Sequence[float], size: Size) -> Given:
    return _ours(path, times, size, _memory(), deadline_seconds=20)


def timeloupe_small_cache(path: str, times: Sequence[float], size: Size) -> Given:
    return _ours(path, times, size, _memory(megabytes=160))


def timeloupe_disk(path: str, times: Sequence[float], size: Size) -> Given:
    return _ours(path, times, size, _memory(os.environ["READER_STUDY_DISK"]))


def _torchcodec(
    path: str, times: Sequence[float], size: Size, mode: str = "exact", inside: bool = True
) -> Given:
    from torchcodec.decoders import VideoDecoder

    kept: dict[str, Any] = {"seek_mode": mode}
    if size is not None and inside:
        from torchcodec.transforms import Resize

        kept["transforms"] = [Resize((size[1], size[0]))]
    decoder = VideoDecoder(path, dimension_order="NCHW" if size and not inside else "NHWC", **kept)
    # Its clock is the container's; ours begins at the first frame.
    begin = decoder.metadata.begin_stream_seconds or 0.0
    found = decoder.get_frames_played_at([begin + time for time in times])
    frames = found.data
    if size is not None and not inside:
        from torch.nn.functional import interpolate

        frames = interpolate(frames, (size[1], size[0]), mode="bilinear", antialias=True).permute(0, 2, 3, 1)
    return frames.numpy(), None


def torchcodec(path: str, times: Sequence[float], size: Size) -> Given:
    return _torchcodec(path, times, size)


def torchcodec_resize_after(path: str, times: Sequence[float], size: Size) -> Given:
    return _torchcodec(path, times, size, inside=False)


def torchcodec_approximate(path: str, times: Sequence[float], size: Size) -> Given:
    return _torchcodec(path, times, size, mode="approximate")


def decord(path: str, times: Sequence[float], size: Size) -> Given:
    from decord import VideoReader

    reader = VideoReader(path, **({} if size is None else {"width": size[0], "height": size[1]}))
    return reader.get_batch(_numbers(times, reader.get_avg_fps(), len(reader))).asnumpy(), None


def opencv_seek(path: str, times: Sequence[float], size: Size) -> Given:
    import cv2

    video = cv2.VideoCapture(path)
    numbers = _numbers(times, video.get(cv2.CAP_PROP_FPS), int(video.get(cv2.CAP_PROP_FRAME_COUNT)))
    frames = {}
    for number in dict.fromkeys(numbers):
        video.set(cv2.CAP_PROP_POS_FRAMES, number)
        frames[number] = _cv2_picture(video.read(), size)
    return np.stack([frames[number] for number in numbers]), None


def opencv_grab(path: str, times: Sequence[float], size: Size) -> Given:
    import cv2

    video = cv2.VideoCapture(path)
    numbers = _numbers(times, video.get(cv2.CAP_PROP_FPS), int(video.get(cv2.CAP_PROP_FRAME_COUNT)))
    at, frames = numbers[0], []
    video.set(cv2.CAP_PROP_POS_FRAMES, at)
    for number in numbers:
        while at <= number:
            video.grab()
            at += 1
        frames.append(_cv2_picture(video.retrieve(), size))
    return np.stack(frames), None


def ffmpeg_fps_filter(path: str, times: Sequence[float], size: Size) -> Given:
    step = times[1] - times[0]
    words = ["-ss", f"{max(0.0, times[0] - step / 2):.6f}", "-t", f"{step * len(times):.6f}", "-i", path]
    filters = f"fps={1 / step:.9f},scale={size[0]}:{size[1]}:flags=bilinear"
    return _ffmpeg([*words, "-vf", filters, "-frames:v", str(len(times))], size), None


def ffmpeg_seek_each(path: str, times: Sequence[float], size: Size) -> Given:
    scale = f"scale={size[0]}:{size[1]}:flags=bilinear"
    ask = [["-ss", f"{time:.6f}", "-i", path, "-vf", scale, "-frames:v", "1"] for time in times]
    return np.concatenate([_ffmpeg(words, size) for words in ask]), None


def qwen_vl_utils(path: str, times: Sequence[float], size: Size, backend: str = "torchcodec") -> Given:
    """The frames stay as fetch_video gives them (float32, channels first): what its users pass on."""
    from qwen_vl_utils import vision_process

    vision_process.FORCE_QWENVL_VIDEO_READER = backend  # what the environment variable of that name sets
    wanted: dict[str, Any] = {"video": path, "nframes": len(times)}
    if size is not None:
        wanted |= {"resized_height": size[1], "resized_width": size[0]}
    step = times[1] - times[0]
    if times[0] > step:
        wanted |= {"video_start": times[0] - step / 2, "video_end": times[-1] + step / 2}
    frames, facts = vision_process.fetch_video(wanted, image_patch_size=_PATCH, return_video_metadata=True)
    if facts["video_backend"] != backend:
        raise RuntimeError(f"qwen-vl-utils fell back to {facts['video_backend']}")
    return frames.permute(0, 2, 3, 1), [int(number) / facts["fps"] for number in facts["frames_indices"]]


def qwen_vl_utils_decord(path: str, times: Sequence[float], size: Size) -> Given:
    return qwen_vl_utils(path, times, size, "decord")


def qwen_vl_utils_torchvision(path: str, times: Sequence[float], size: Size) -> Given:
    return qwen_vl_utils(path, times, size, "torchvision")


def cut_a_clip(path: str, times: Sequence[float], size: Size) -> Given:
    """A crop is cut into a file of its own by FFmpeg (its default encoder settings), then read by qwen-vl-utils."""
    step = times[1] - times[0]
    if times[0] <= step:
        return qwen_vl_utils(path, times, size)
    with tempfile.TemporaryDirectory() as folder:
        clip = str(Path(folder) / "clip.mp4")
        start, length = times[0] - step / 2, step * len(times)
        cut = ["-ss", f"{start:.6f}", "-t", f"{length:.6f}", "-i", path, "-c:v", "libx264", "-an", clip]
        subprocess.run(["ffmpeg", "-v", "error", "-nostdin", *cut], check=True)
        frames, told = qwen_vl_utils(clip, [step / 2 + step * number for number in range(len(times))], size)
        return frames, [start + at for at in told or ()]


@dataclass(frozen=True)
class Reader:
    """How one reader is called.

    Attributes:
        read: The function above.
        imports: Modules that are imported before anything is measured.
        ours: It runs in the project's own environment.
        whole: It can skim a whole video (an OpenCV grab loop would decode all of it).
        keeps: It keeps frames from one read to the next.
    """

    read: Callable[[str, Sequence[float], Size], Given]
    imports: tuple[str, ...]
    ours: bool = False
    whole: bool = True
    keeps: bool = False


_TORCHCODEC = ("torch", "torchcodec.decoders", "torchcodec.transforms")
_QWEN = ("torch", "torchcodec.decoders", "decord", "qwen_vl_utils.vision_process")
_OURS = ("timeloupe.video.reader", "timeloupe.video.cache")

READERS: dict[str, Reader] = {
    "timeloupe": Reader(timeloupe, _OURS, ours=True, keeps=True),
    "timeloupe, no cache": Reader(timeloupe_no_cache, _OURS, ours=True),
    "timeloupe, keyframe skim": Reader(timeloupe_keyframes, _OURS, ours=True, keeps=True),
    "timeloupe, worker process": Reader(timeloupe_worker, _OURS, ours=True, keeps=True),
    "timeloupe, 160 MB cache": Reader(timeloupe_small_cache, _OURS, ours=True, keeps=True),
    "timeloupe, warm disk": Reader(timeloupe_disk, _OURS, ours=True, keeps=True),
    "torchcodec": Reader(torchcodec, _TORCHCODEC),
    "torchcodec, resize after": Reader(torchcodec_resize_after, _TORCHCODEC),
    "torchcodec, approximate": Reader(torchcodec_approximate, _TORCHCODEC),
    "decord": Reader(decord, ("decord",)),
    "OpenCV, seek": Reader(opencv_seek, ("cv2",)),
    "OpenCV, grab": Reader(opencv_grab, ("cv2",), whole=False),
    "ffmpeg, fps filter": Reader(ffmpeg_fps_filter, ()),
    "ffmpeg, -ss each": Reader(ffmpeg_seek_each, ()),
    "qwen-vl-utils (torchcodec)": Reader(qwen_vl_utils, _QWEN),
    "qwen-vl-utils (decord)": Reader(qwen_vl_utils_decord, _QWEN),
    "qwen-vl-utils (torchvision)": Reader(qwen_vl_utils_torchvision, _QWEN, whole=False),
    "cut a clip": Reader(cut_a_clip, _QWEN, whole=False),
}


def load(reader: Reader) -> None:
    """Import what a reader needs."""
    if "torch" in reader.imports:
        _declare_torchvision_operators()
    for name in reader.imports:
        with contextlib.redirect_stderr(open(os.devnull, "w")):
            importlib.import_module(name)


def _declare_torchvision_operators() -> None:
    """Let ``import torchvision`` work beside a CPU torch: its own library needs CUDA and declares nothing then."""
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declare_torchvision_operators.kept = library  # type: ignore[attr-defined]  # gone with the object


def _numbers(times: Sequence[float], fps: float, count: int) -> list[int]:
    return [min(int(time * fps + 1e-6), count - 1) for time in times]


def _cv2_picture(read: tuple[bool, Any], size: Size) -> Any:
    import cv2

    found, picture = read
    if not found:
        raise RuntimeError("OpenCV gave no frame")
    if size is not None:
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def _ffmpeg(words: list[str], size: Size) -> np.ndarray:
    assert size is not None
    command = ["ffmpeg", "-v", "error", "-nostdin", *words, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    given = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    return np.frombuffer(given, np.uint8).reshape(-1, size[1], size[0], 3)


# -- measuring ---------------------------------------------------------------------------------------------------------


def _kilobytes(process: int | str, key: str) -> int:
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(key + ":")), 0)


def _children() -> Iterator[int]:
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            yield from map(int, (task / "children").read_text(encoding="ascii").split())


class ChildrenPeak(threading.Thread):
    """Watches the memory of child processes: their own peaks, as the kernel keeps them (a child's ``ru_maxrss``
    would count what its parent held when it was started)."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.done = threading.Event()
        self.kilobytes = 0

    def run(self) -> None:
        while not self.done.wait(0.05):
            self.kilobytes = max(self.kilobytes, sum(_kilobytes(child, "VmHWM") for child in _children()))


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    total = sum(one.ru_utime + one.ru_stime for one in used)
    for child in _children():  # one that goes on living is in neither
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{child}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def measure(reader: Reader, job: dict[str, Any]) -> dict[str, Any]:
    """Return CPU-seconds of each read, peak memory and its growth in MB, and frames decoded (ours)."""
    load(reader)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew
    before = _kilobytes("self", "VmRSS")
    watch = ChildrenPeak()
    watch.start()
    size = tuple(job["size_wh"])
    _SHARED.append(job["shared"])
    seconds = []
    for times in job["reads"]:
        start = _cpu_seconds()
        frames, _ = reader.read(job["path"], times, size)
        seconds.append(_cpu_seconds() - start)
        if tuple(frames.shape) != (len(times), size[1], size[0], 3):
            raise RuntimeError(f"asked for {len(times)} frames of {size}, got {tuple(frames.shape)}")
        del frames
    peak = _kilobytes("self", "VmHWM")
    watch.done.set()
    watch.join()
    return {
        "seconds": seconds,
        "peak_mb": (peak + watch.kilobytes) / 1024,
        "growth_mb": (peak - before + watch.kilobytes) / 1024,
        "decoded": sum(_DECODED),
    }


if __name__ == "__main__":
    result = measure(READERS[sys.argv[1]], json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")))
    print(json.dumps(result))
