"""Clips as lossless files: the same bits and the same times come back."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from timeloupe.errors import ConfigError, VideoError
from timeloupe.video.clip_file import MICROSECONDS, clock_of, decode_clip, encode_clip
from timeloupe.video.image import to_jpeg


def noise(count: int, height: int = 6, width: int = 10) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


@settings(max_examples=40)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    micros=st.lists(st.integers(0, 10**11), min_size=1, max_size=6, unique=True),
)
def test_pixels_to_the_bit_and_times_to_the_microsecond(height: int, width: int, micros: list[int]) -> None:
    at_seconds = [tick / MICROSECONDS for tick in sorted(micros)]
    pixels = noise(len(at_seconds), height, width)
    found, times = decode_clip(encode_clip(pixels, at_seconds))
    assert np.array_equal(found, pixels)
    assert times == tuple(at_seconds)


@settings(max_examples=40)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    micros=st.lists(st.integers(0, 10**11), min_size=1, max_size=6, unique=True),
    quality=st.integers(1, 95),
)
def test_jpeg_clips_show_what_single_jpegs_show(
    height: int, width: int, micros: list[int], quality: int
) -> None:
    at_seconds = [tick / MICROSECONDS for tick in sorted(micros)]
    pixels = noise(len(at_seconds), height, width)
    found, times = decode_clip(encode_clip(pixels, at_seconds, jpeg_quality=quality))
    for shown, picture in zip(found, pixels, strict=True):
        with Image.open(io.BytesIO(to_jpeg(picture, quality))) as alone:
            assert np.array_equal(shown, np.asarray(alone))
    assert times == tuple(at_seconds)


@pytest.mark.parametrize(
    "rate", [Fraction(30), Fraction(30000, 1001), Fraction(24000, 1001), Fraction(25, 2), Fraction(1, 40)]
)
def test_times_of_a_steady_rate_come_back_to_the_last_bit(rate: Fraction) -> None:
    at_seconds = [float(index / rate) for index in (7, 8, 190, 100_000)]
    clock = clock_of(at_seconds)
    assert [round(at * clock) / clock for at in at_seconds] == at_seconds
    assert clock < MICROSECONDS
    assert list(decode_clip(encode_clip(noise(4), at_seconds))[1]) == at_seconds


def test_times_of_no_grid_are_rounded_to_microseconds() -> None:
    at_seconds = [0.1234567891, 2**0.5, 5000 + 3**0.5]
    assert clock_of(at_seconds) == MICROSECONDS
    assert decode_clip(encode_clip(noise(3), at_seconds))[1] == pytest.approx(at_seconds, abs=0.5e-6)


def test_pictures_that_are_not_contiguous() -> None:
    pixels = noise(4)[::-1, :, ::2]
    assert np.array_equal(decode_clip(encode_clip(pixels, [0, 1, 2, 3]))[0], pixels)


@pytest.mark.parametrize(
    ("pixels", "at_seconds", "says"),
    [
        (noise(2), [0.0], "one per frame"),
        (noise(2), [1.0, 1.0], "ascending"),
        (noise(2), [1.0, 1.0 + 1e-9], "ascending"),
        (noise(2), [2.0, 1.0], "ascending"),
        (noise(2)[:0], [], "not empty"),
        (noise(2).astype(np.float32), [0.0, 1.0], "uint8"),
        (noise(2)[0], [0.0], r"\(N, H, W, 3\)"),
    ],
)
def test_what_is_no_clip(pixels: np.ndarray, at_seconds: list[float], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        encode_clip(pixels, at_seconds)


def test_what_is_no_clip_file() -> None:
    data = encode_clip(noise(3), [0, 1, 2])
    other = io.BytesIO()
    with av.open(other, "w", format="nut") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 32
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise(1, 32, 32)[0], format="rgb24")))
        container.mux(stream.encode(None))
    jpegs = encode_clip(noise(3, 32, 32), [0, 1, 2], jpeg_quality=90)
    cut = jpegs[: len(jpegs) - 900]
    bent = jpegs.replace(b"\xff\xd8\xff", b"GIF")
    for wrong in (
        cut,
        bent,
        b"",
        b"#EXTM3U\nfile:///etc/passwd\n",
        data[:60],
        other.getvalue(),
        noise(1).tobytes(),
    ):
        with pytest.raises(VideoError, match="encode_clip"):
            decode_clip(wrong)
