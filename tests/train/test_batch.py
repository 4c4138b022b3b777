"""Micro batches hold what begins alike."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from timeloupe.model.episode import Clip, TokenEpisode, TokenSegment
from timeloupe.train.batch import Sample, micro_batches


def sample(video: int, question: int, reply: int) -> Sample:
    """A roll-out: videos of one question share all words of the prompt."""
    clip = Clip(np.full((1, 2, 2, 3), video, np.uint8), (0.0,))
    segments = (TokenSegment((1, question, 9)), TokenSegment((5, reply), True))
    return Sample(TokenEpisode(segments, (clip,)), 0.5)


@given(seed=st.integers(0, 999), members=st.integers(1, 5))
def test_a_micro_batch_as_large_as_a_group_is_a_group(seed: int, members: int) -> None:
    keys = [(video, question) for video in range(3) for question in (20, 21)]
    samples = [sample(*key, random.Random(seed + n).randint(30, 34)) for key in keys for n in range(members)]
    random.Random(seed).shuffle(samples)
    parts = micro_batches(samples, members)
    assert sorted(map(id, (one for part in parts for one in part))) == sorted(map(id, samples))
    for part in parts:
        assert (
            len({(int(one.episode.clips[0].pixels[0, 0, 0, 0]), one.episode.token_ids[1]) for one in part})
            == 1
        )
        replies = [one.episode.token_ids[4] for one in part]
        assert replies == sorted(replies)


def test_the_last_micro_batch_may_be_smaller_and_text_alone_has_its_place() -> None:
    text = Sample(TokenEpisode((TokenSegment((1, 2)), TokenSegment((3,), True))), 1.0)
    parts = micro_batches([sample(0, 20, 30), text, sample(0, 20, 31)], 2)
    assert [len(part) for part in parts] == [2, 1]
    assert text in parts[1]
