"""Chats as request bodies: nothing is lost, nothing is encoded twice, nothing too large is sent."""

from __future__ import annotations

import base64
import gc
import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from timeloupe.errors import ConfigError
from timeloupe.policy.base import GenerationRequest, Sampling
from timeloupe.policy.openai_wire import PictureStore, RequestTooLarge, WireForm, build_body
from timeloupe.trajectory import FrameRef, Message, Text
from timeloupe.video.clip_file import decode_clip

PNG_IMAGES = WireForm(image_format="png")
PNG_VIDEO = WireForm(send="video", image_format="png")


def view(*at_seconds: float) -> FrameRef:
    return FrameRef(
        video="/secret/place/a.mp4", view="skim", start_seconds=0, end_seconds=9e5, at_seconds=at_seconds,
        size_wh=(12, 8),
    )  # fmt: skip


def noise(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 8, 12, 3), dtype=np.uint8)


def ask(*clips: np.ndarray, times: tuple[tuple[float, ...], ...], **changes: Any) -> GenerationRequest:
    messages: list[Message] = [Message(role="system", parts=(Text(text="s"),))]
    for at_seconds in times:
        messages.append(Message(role="user", parts=(Text(text="a"), view(*at_seconds), Text(text="q"))))
        messages.append(Message(role="assistant", parts=(Text(text="look"),)))
    return GenerationRequest(messages=tuple(messages[:-1]), clips=clips, **changes)


def picture(data: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_images_stand_after_their_times() -> None:
    clip = noise(2)
    body = build_body(ask(clip, times=((1.25, 30.0),)), "m", PNG_IMAGES, PictureStore())
    system, user = body["messages"]
    assert system == {"role": "system", "content": "s"}
    kinds = [part["type"] for part in user["content"]]
    assert kinds == ["text", "text", "image_url", "text", "image_url", "text"]
    assert [part["text"] for part in user["content"] if part["type"] == "text"] == [
        "a", "<1.2 seconds>", "<30.0 seconds>", "q",
    ]  # fmt: skip
    urls = [part["image_url"]["url"] for part in user["content"] if part["type"] == "image_url"]
    for url, pixels in zip(urls, clip, strict=True):
        head, _, data = url.partition(",")
        assert head == "data:image/png;base64" and np.array_equal(picture(data), pixels)
    assert "media_io_kwargs" not in body and "secret" not in str(body)


def test_jpeg_is_asked_for_by_default() -> None:
    body = build_body(ask(noise(1), times=((1.0,),)), "m", WireForm(), PictureStore())
    assert body["messages"][1]["content"][2]["image_url"]["url"].startswith("data:image/jpeg;base64,/9j/")


@given(
    st.lists(st.integers(0, 3 * 10**8), min_size=1, max_size=5, unique=True),
    st.sampled_from([30, 25, 24000, 1000]),
)
def test_one_video_says_when_each_frame_is(ticks: list[int], clock: int) -> None:
    at_seconds = tuple(tick / clock for tick in sorted(ticks))
    clip = noise(len(ticks))
    body = build_body(ask(clip, times=(at_seconds,)), "m", PNG_VIDEO, PictureStore())
    video = body["media_io_kwargs"]["video"]
    assert tuple(tick / float(video["fps"]) for tick in video["frames_indices"]) == at_seconds
    assert video["num_frames"] == -1 and video["do_sample_frames"] is False
    assert video["total_num_frames"] > max(video["frames_indices"])
    url = body["messages"][1]["content"][1]["video_url"]["url"]
    frames = url.removeprefix("data:video/jpeg;base64,").split(",")
    assert np.array_equal(np.stack([picture(frame) for frame in frames]), clip)


def test_two_videos_carry_their_own_times() -> None:
    clips, times = (noise(2), noise(3)), ((0.0, 40.04), (10.01, 10.51051, 11.0))
    body = build_body(ask(*clips, times=times), "m", PNG_VIDEO, PictureStore())
    assert body["media_io_kwargs"] == {"video": {"video_backend": "timeloupe"}}
    urls = [
        message["content"][1]["video_url"]["url"] for message in body["messages"] if message["role"] == "user"
    ]
    for url, clip, at_seconds in zip(urls, clips, times, strict=True):
        head, _, data = url.partition(",")
        assert head.startswith("data:video/") and head != "data:video/jpeg;base64"
        found, when = decode_clip(base64.b64decode(data))
        assert np.array_equal(found, clip) and when == pytest.approx(at_seconds, abs=1e-6)


def test_clip_files_hold_the_pictures_that_images_would_show() -> None:
    clips, times = (noise(2), noise(3)), ((0.0, 40.04), (10.01, 10.51051, 11.0))
    store = PictureStore()
    files = build_body(ask(*clips, times=times), "m", WireForm(send="video", jpeg_quality=70), store)
    single = build_body(ask(*clips, times=times), "m", WireForm(jpeg_quality=70), store)
    for message, pictures, at_seconds in zip(
        [one for one in files["messages"] if one["role"] == "user"],
        [one for one in single["messages"] if one["role"] == "user"], times, strict=True,
    ):  # fmt: skip
        data = message["content"][1]["video_url"]["url"].partition(",")[2]
        found, when = decode_clip(base64.b64decode(data))
        urls = [part["image_url"]["url"] for part in pictures["content"] if part["type"] == "image_url"]
        assert np.array_equal(found, np.stack([picture(url.partition(",")[2]) for url in urls]))
        assert when == at_seconds


def test_a_long_grainy_skim_and_a_crop_fit_the_default_limit() -> None:
    grain = np.random.default_rng(0).normal(0, 6, (16, 252, 448, 3))
    slope = np.linspace(0, 255, 448)[None, None, :, None]
    few = np.clip(slope + grain, 0, 255).astype(np.uint8)
    skim, crop = np.concatenate([few] * 16), few[:8]
    request = ask(skim, crop, times=(tuple(range(256)), tuple(range(8))))
    form = WireForm(send="video")
    assert len(str(build_body(request, "m", form, PictureStore()))) < form.max_request_bytes
    both = ask(crop, crop[:2], times=(tuple(range(8)), (0, 1)))
    tight = replace(PNG_VIDEO, max_request_bytes=2**20)
    with pytest.raises(RequestTooLarge, match="10 frames as png .* send jpeg .*--max-request"):
        build_body(both, "m", tight, PictureStore())
    build_body(both, "m", replace(tight, image_format="jpeg"), PictureStore())


def test_sampling_is_sent_as_asked() -> None:
    sampling = Sampling(temperature=0.5, top_p=0.9, top_k=50, max_new_tokens=7, stop=("</a>", "</b>"))
    request = ask(times=(), seed=2**63 - 5, sampling=sampling)
    body = build_body(
        replace(request, messages=(Message(role="user", parts=()),)), "m", WireForm(), PictureStore()
    )
    assert body == {
        "model": "m", "messages": [{"role": "user", "content": ""}], "temperature": 0.5, "top_p": 0.9, "top_k": 50,
        "seed": 2**31 - 5, "max_tokens": 7, "stop": ["</a>", "</b>"],
    }  # fmt: skip
    plain = build_body(ask(noise(1), times=((0.0,),)), "m", WireForm(), PictureStore(), limit_key="most")
    assert "top_k" not in plain and "stop" not in plain and plain["most"] == 512


def test_a_clip_is_encoded_once_for_all_turns_and_roll_outs() -> None:
    skim, crop, store = noise(3), noise(2), PictureStore()
    first = build_body(ask(skim, times=((0, 1, 2),)), "m", WireForm(), store)
    for _ in range(7):
        again = build_body(ask(skim, crop, times=((0, 1, 2), (1.5, 1.6))), "m", WireForm(), store)
    assert store.num_encoded == 2
    assert again["messages"][1] == first["messages"][1]


def test_the_store_forgets_what_is_gone_and_what_is_too_much() -> None:
    small = PictureStore(max_bytes=3000)
    kept = [noise(2) for _ in range(20)]
    for clip in kept:
        build_body(ask(clip, times=((0, 1),)), "m", PNG_IMAGES, small)
        assert small._bytes <= 3000
    assert 0 < len(small._kept) < 20
    store = PictureStore()
    for level in range(5):
        clip = np.full((1, 8, 12, 3), level, np.uint8)
        body = build_body(ask(clip, times=((0,),)), "m", PNG_IMAGES, store)
        shown = picture(body["messages"][1]["content"][2]["image_url"]["url"].partition(",")[2])
        assert shown.max() == level, "the picture of an array that is gone"
        del clip
        gc.collect()
    assert len(store._kept) <= 2


@pytest.mark.parametrize("form", [PNG_IMAGES, PNG_VIDEO, WireForm()])
def test_too_large_is_told_before_it_is_sent(form: WireForm) -> None:
    request = ask(noise(4), times=((0, 1, 2, 3),))
    size = len(str(build_body(request, "m", form, PictureStore())))
    with pytest.raises(RequestTooLarge, match="4 frames as .* have more than 500 bytes; show fewer"):
        build_body(request, "m", replace(form, max_request_bytes=500), PictureStore())
    build_body(request, "m", replace(form, max_request_bytes=size), PictureStore())


def test_wrong_requests() -> None:
    shown = Message(role="assistant", parts=(view(0.0),))
    for request, says in (
        (ask(times=((0.0,),)), "clips of a chat"),
        (ask(noise(2), times=((0.0,),)), "clip 0 of a chat"),
        (GenerationRequest(messages=(shown,), clips=(noise(1),)), "assistant message"),
        (GenerationRequest(messages=(), sampling=Sampling(stop=tuple("abcde"))), "5 stop strings"),
    ):
        with pytest.raises(ConfigError, match=says):
            build_body(request, "m", WireForm(), PictureStore())
