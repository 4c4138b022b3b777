"""Sizes that a model takes, and picture bytes."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from timeloupe.video.image import fit_size, to_jpeg, to_png

sides = st.integers(1, 5000)


@given(st.tuples(sides, sides), st.sampled_from([1, 2, 14, 28, 32]), st.integers(1, 40), st.integers(0, 4000))
def test_fitted_sizes_keep_their_laws(size: tuple[int, int], multiple: int, blocks: int, more: int) -> None:
    lower, upper = blocks * multiple**2, (blocks + more) * multiple**2
    width, height = fit_size(size, min_pixels=lower, max_pixels=upper, multiple=multiple)
    assert width % multiple == 0 and height % multiple == 0 and min(width, height) >= multiple
    assert width * height <= upper
    assert fit_size((width, height), min_pixels=0, max_pixels=upper, multiple=multiple) == (width, height)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((1920, 1080), (280, 168)), ((128, 128), (140, 140)), ((640, 360), (280, 168)), ((28, 28), (56, 56))],
)
def test_fit_size_examples(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert fit_size(size, min_pixels=3136, max_pixels=50176, multiple=28) == expected


def test_fit_size_keeps_the_aspect_ratio() -> None:
    width, height = fit_size((1920, 1080), min_pixels=0, max_pixels=1024 * 768, multiple=28)
    assert width / height == pytest.approx(16 / 9, rel=0.05)


def test_fit_size_of_very_long_pictures_stays_within_bounds() -> None:
    assert fit_size((10000, 10), min_pixels=3136, max_pixels=50176, multiple=28) == (1792, 28)
    assert fit_size((10, 10000), min_pixels=3136, max_pixels=50176, multiple=28) == (28, 1792)


@pytest.mark.parametrize(
    ("size", "bounds", "multiple"),
    [((0, 5), (0, 100), 1), ((5, 5), (10, 5), 1), ((5, 5), (0, 700), 28), ((5, 5), (0, 9), 0)],
)
def test_fit_size_names_bad_numbers(size: tuple[int, int], bounds: tuple[int, int], multiple: int) -> None:
    with pytest.raises(ValueError, match="got"):
        fit_size(size, min_pixels=bounds[0], max_pixels=bounds[1], multiple=multiple)


def test_png_is_lossless_and_jpeg_is_near() -> None:
    picture = np.random.default_rng(1).integers(0, 256, (24, 30, 3), np.uint8)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(to_png(picture)))), picture)
    flat = np.full((24, 30, 3), 90, np.uint8)
    assert np.abs(np.asarray(Image.open(io.BytesIO(to_jpeg(flat)))).astype(int) - 90).max() <= 2
    with pytest.raises(ValueError, match="uint8"):
        to_png(picture.astype(float))
