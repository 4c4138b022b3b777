"""Records of every format: read, told by their fields, written again as they were, or refused by field and value."""

from __future__ import annotations

import copy
import json
import string
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.formats.rows_for_tests import (
    PROTOCOL,
    context,
    episodes,
    hundredths,
    questions,
    sentences,
    words,
)
from timeloupe.data.formats.convert import read_row, write_row
from timeloupe.data.formats.registry import MODULES, format_named, recognised
from timeloupe.data.formats.rest import named, put_back, rest_of
from timeloupe.data.formats.row import ABSENT, Row
from timeloupe.errors import RecordError
from timeloupe.eval.files.records import Record
from timeloupe.prompt.build import write_call
from timeloupe.trajectory import Segment

ids = st.integers(0, 9999)
paths = words.map(lambda word: f"{word}/{word}.mp4")


@st.composite
def windows(draw: st.DrawFn, most: int = 3) -> list[list[float]]:
    times = sorted(draw(st.lists(hundredths, min_size=2, max_size=2 * most, unique=True)))
    return [list(pair) for pair in zip(times[::2], times[1::2], strict=False)]


@st.composite
def swift_sft(draw: st.DrawFn) -> dict[str, Any]:
    """A row of supervised training with or without calls, worded by somebody else, clips in files of their own."""
    main = draw(paths)
    messages = [
        {"role": "system", "content": draw(sentences)},
        {"role": "user", "content": f"<video>{draw(sentences)}?\nA. {draw(words)}\nB. {draw(words)}"},
    ]
    record: dict[str, Any] = {"messages": messages, "videos": [main]}
    for start, end in draw(st.just([]) | windows(2)):
        call = write_call([Segment(start_seconds=start, end_seconds=end)], PROTOCOL)
        messages.append({"role": "assistant", "content": f"<think>{draw(sentences)}</think>{call}"})
        messages.append({"role": "user", "content": f"<video>{draw(sentences)}"})
        record["videos"].append(f"{main[:-4]}_{start}_{end}.mp4")
        record.setdefault("tool_params", []).append([start, end])
    messages.append({"role": "assistant", "content": f"<think>{draw(sentences)}</think><answer>B</answer>"})
    return record


@st.composite
def swift_rl(draw: st.DrawFn) -> dict[str, Any]:
    ask = f"<video>\n{draw(sentences)}?"
    record: dict[str, Any] = {"videos": [draw(paths)], "timestamp": draw(windows())}
    if draw(st.booleans()):
        record |= {"data_type": "qa", "solution": draw(st.sampled_from("AB"))}
        ask += f"\nA. {draw(words)}\nB. {draw(words)}"
    else:
        record |= {"data_type": "grounding"}
    messages = [{"role": "system", "content": draw(sentences)}, {"role": "user", "content": ask}]
    return {"messages": messages} | record


@st.composite
def trl(draw: st.DrawFn) -> dict[str, Any]:
    pictures = draw(st.lists(words.map(lambda word: f"{word}.png"), min_size=1, max_size=3))
    parts = [{"type": "image"} for _ in pictures] + [{"type": "text", "text": draw(sentences)}]
    messages = [{"role": "user", "content": parts}]
    if draw(st.booleans()):
        messages.append({"role": "assistant", "content": [{"type": "text", "text": draw(sentences)}]})
    return {"messages" if len(messages) > 1 else "prompt": messages, "images": pictures}


@st.composite
def openai(draw: st.DrawFn) -> dict[str, Any]:
    url = draw(words.map(lambda word: f"https://example.org/{word}.png"))
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": draw(sentences)}]
    return {
        "messages": [
            {"role": "system", "content": draw(sentences)},
            {"role": "user", "content": parts},
            {"role": "assistant", "content": draw(sentences)},
        ]
    }


@st.composite
def museg(draw: st.DrawFn) -> dict[str, Any]:
    record: dict[str, Any] = {"idx": draw(ids), "problem": draw(sentences), "solution": draw(windows())}
    record["video"] = draw(paths)
    if draw(st.booleans()):
        record["duration"] = draw(hundredths)
    return record | {"task": draw(st.sampled_from(["tvg", "tal"]))}


@st.composite
def museg_eval(draw: st.DrawFn) -> dict[str, Any]:
    return {"video": draw(paths), "question": draw(sentences), "groundtruth": draw(windows())}


@st.composite
def taro(draw: st.DrawFn) -> dict[str, Any]:
    """A row of training or test, of a whole video or of a part."""
    part = draw(st.none() | windows(1))
    query = draw(sentences)
    record: dict[str, Any] = {
        "data_source": draw(words),
        "prompt": [{"role": "user", "content": f"<video>When does {query} happen? {draw(sentences)}"}],
        "videos": [draw(paths)],
        "video_start": part[0][0] if part else None,
        "video_end": part[0][1] if part else None,
        "ability": "vtg",
        "reward_model": {"style": "rule", "ground_truth": draw(windows(1))[0]},
        "extra_info": {"split": "test", "index": draw(ids), "duration": draw(hundredths.filter(bool))},
    }
    if draw(st.booleans()):
        record["extra_info"]["split"] = "train"
        record |= {"query": query, "captions": draw(st.lists(sentences, min_size=1, max_size=3))}
    return record


@st.composite
def taro_eval(draw: st.DrawFn) -> dict[str, Any]:
    video = draw(words)
    record = {"qid": draw(words | ids), "query": draw(sentences), "duration": draw(hundredths)}
    record |= {"vid": video, "relevant_windows": draw(windows()), "video_file": f"{video}.mp4"}
    if draw(st.booleans()):
        start, end = draw(windows(1))[0]
        record |= {"video_start": start, "video_end": end}
    return record


@st.composite
def openo3(draw: st.DrawFn) -> dict[str, Any]:
    """A row of each task, of supervised training or not."""
    kind = draw(st.sampled_from(["spatial", "visual", "temporal", "temporal choice", "choice", "free"]))
    record: dict[str, Any] = {"source": draw(words), "question": f"{draw(sentences)}?"}
    span = json.dumps(draw(windows(1))[0])
    if kind == "visual":
        size = [draw(st.integers(50, 2000)), draw(st.integers(50, 2000))]
        corners = [
            draw(st.integers(0, 20)),
            draw(st.integers(0, 20)),
            size[0],
            draw(st.integers(21, size[1])),
        ]
        answer = f"<obj>{draw(words)}</obj><box>{json.dumps(corners)}</box>"
        return record | {"task": "visual QA", "answer": answer, "image_path": draw(paths), "image_size": size}
    record["video_path"] = draw(paths)
    if kind == "spatial":
        times = sorted(draw(st.lists(hundredths, min_size=1, max_size=3, unique=True)))
        frames = [{"idx": at, "time": time, "path": f"k{at}.jpg"} for at, time in enumerate(times, 1)]
        items = {
            str(one["idx"]): {draw(words): [[0.1, 0.2, 0.5, 0.75], [0.25, 0.5, 1.0, 1.0]]} for one in frames
        }
        record |= {"task": "temporal-spatial free-form QA", "answer": draw(sentences)}
        record |= {"key_frames": frames, "key_items": items}
    elif kind == "temporal":
        record |= {"task": "temporal QA", "answer": span}
    elif kind == "free":
        record |= {"task": "General video QA Free-form", "answer": draw(sentences)}
    else:
        record["question"] += f"\nA. {draw(words)}\nB. {draw(words)}"
        letter = draw(st.sampled_from(string.ascii_uppercase[:2]))
        record |= {"task": "General video QA MCQ", "answer": letter}
        if kind == "temporal choice":
            record |= {"task": "temporal QA (MCQ)", "answer": f"{letter}\n{span}"}
    if draw(st.booleans()):
        record["reasoning_process"] = draw(sentences)
    return record


def verl_of(row: Row) -> dict[str, Any]:
    return write_row(format_named("verl"), row, 7, context(), own=False)


RECORDS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "examples": questions().map(lambda one: one.model_dump(mode="json")),
    "trajectories": episodes().map(lambda one: one.model_dump(mode="json")),
    "swift_sft": swift_sft(), "swift_rl": swift_rl(), "trl": trl(), "openai": openai(),
    "verl": questions().map(Row).map(verl_of), "museg": museg(), "museg_eval": museg_eval(), "taro": taro(),
    "taro_eval": taro_eval(), "openo3": openo3(),
}  # fmt: skip

RESTS: dict[str, set[str]] = {"openo3": {"key_frames"}, "openai": set()}
"""What rows have no place for in records as their releases write them: the pictures of key frames."""


def test_every_format_has_records_to_try() -> None:
    assert RECORDS.keys() == MODULES.keys()


@pytest.mark.parametrize("name", RECORDS)
@settings(max_examples=20)
@given(data=st.data())
def test_a_record_is_written_again_as_it_was(name: str, data: st.DataObject) -> None:
    record = data.draw(RECORDS[name])
    format, kept = format_named(name), copy.deepcopy(record)
    row = read_row(format, Record("f:1", record), 7, context(format.protocol))
    assert write_row(format, row, 7, context(format.protocol), own=True) == record == kept
    # It is the row that holds it, not what is put back.
    assert set(named(row.rest)) <= RESTS.get(name, set()), row.rest


@pytest.mark.parametrize("name", RECORDS)
@settings(max_examples=8)
@given(data=st.data())
def test_a_record_is_told_from_all_other_formats(name: str, data: st.DataObject) -> None:
    assert recognised([data.draw(RECORDS[name])], "f").name == name


@pytest.mark.parametrize("name", sorted(RECORDS.keys() - {"examples", "trajectories"}))
@settings(max_examples=8)
@given(data=st.data())
def test_fields_that_nobody_knows_are_put_back_and_named(name: str, data: st.DataObject) -> None:
    format = format_named(name)
    known = data.draw(RECORDS[name])
    record = known | {"weight": 0.5, "meta": {"by": "hand", "none": None}}
    row = read_row(format, Record("f:1", record), 0, context(format.protocol))
    assert write_row(format, row, 0, context(format.protocol), own=True) == record
    assert {"weight", "meta.by"} <= set(named(row.rest)) and "meta.none" not in set(named(row.rest))


USER = {"role": "user", "content": "?"}
ASKS = {"question": "q", "video_path": "v"}
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("museg", {"problem": "p", "solution": [[3, 3]], "video": "v", "task": "tvg"}, r"solution\[0\].*start < end.*3, 3"),
    ("museg", {"problem": "p", "solution": [1, 2], "video": "v", "task": "tvg"}, r"'solution\[0\]'.*got 1"),
    ("museg", {"problem": "p", "solution": [[-1, 2]], "video": "v", "task": "tvg"}, r"0 <= start.*\[-1, 2\]"),
    ("museg", {"problem": "p", "solution": [[0, float("inf")]], "video": "v", "task": "tvg"}, r"inf"),
    ("museg", {"problem": "p", "solution": [[True, 2]], "video": "v", "task": "tvg"}, r"True"),
    ("museg", {"problem": "p", "solution": [[1, 2]], "video": "v", "task": "vhd"}, r"'task'.*tvg, tal.*'vhd'"),
    ("museg", {"problem": 5, "solution": [[1, 2]], "video": "v", "task": "tvg"}, r"'problem'.*text.*5"),
    ("museg", {"problem": "p", "solution": [[1, 2]], "video": "v", "task": "tvg", "duration": "x"}, r"'duration'.*'x'"),
    ("swift_sft", {"messages": [USER | {"content": "<video><video>?"}], "videos": ["v"]}, r"1 videos.*more <video>"),
    ("swift_sft", {"messages": [USER], "videos": ["v"]}, r"'messages'.*1 files without"),
    ("swift_sft", {"messages": [{"role": "human", "content": "?"}], "videos": []}, r"'role'.*'human'"),
    ("swift_sft", {"messages": [USER], "videos": []}, r"'turns'.*reply"),
    ("swift_sft", {"messages": "?", "videos": []}, r"'messages'.*list"),
    (
        "swift_sft",
        {
            "messages": [{"role": "user", "content": "<video>?"}, {"role": "assistant", "content": "x"}],
            "videos": ["v"], "tool_params": [[1, 2]],
        },
        r"'tool_params'.*0 clips, got 1",
    ),
    ("swift_rl", {"messages": [USER], "videos": [], "data_type": "vqa"}, r"qa, grounding.*'vqa'"),
    ("swift_rl", {"messages": [USER], "videos": [], "data_type": "qa"}, r"'solution'.*missing"),
    (
        "swift_rl",
        {"messages": [USER | {"role": "assistant"}], "videos": [], "data_type": "grounding", "timestamp": [[1, 2]]},
        r"'messages'.*before the first reply",
    ),
    ("trl", {"messages": [{"role": "user", "content": [{"type": "image"}]}], "images": []}, r"'images'.*got 0"),
    ("trl", {"messages": [{"role": "user", "content": "x"}], "images": ["a.png"]}, r"'images'.*1 without"),
    ("trl", {"messages": [{"role": "user", "content": [{"type": "video"}]}], "images": []}, r"texts and images.*video"),
    ("openai", {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, r"image_url.*input_audio"),
    ("taro", {"prompt": [], "videos": ["a", "b"], "reward_model": {}, "extra_info": {}}, r"'videos'.*one path, got 2"),
    ("taro_eval", {"qid": 1, "query": "q", "vid": "v", "relevant_windows": [[1, 2]], "video_start": 3}, "end.*3, None"),
    ("openo3", ASKS | {"task": "dancing", "answer": "a"}, r"'task'.*temporal QA.*'dancing'"),
    ("openo3", ASKS | {"task": "temporal QA", "answer": "soon"}, r"'answer'.*\[start, end\].*'soon'"),
    (
        "openo3",
        {
            "task": "temporal-spatial free-form QA", "question": "q", "answer": "a", "video_path": "v",
            "key_frames": [{"idx": 1, "time": 2.0}], "key_items": {"1": {"cup": [[0.5, 0.1, 0.2, 0.9]]}},
        },
        r"key_items.1.cup\[0\].*x1 < x2",
    ),
    ("examples", {"id": "a", "video": "v", "question": "q", "task": "dance"}, r"'task'.*'dance'"),
    ("trajectories", {"example": {}, "policy": "p", "protocol": "p", "stop": "answered"}, r"'example.id'"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "record", "says"), REFUSED)
def test_a_bad_record_is_refused_by_place_field_and_value(
    name: str, record: dict[str, Any], says: str
) -> None:
    format = format_named(name)
    with pytest.raises(RecordError, match=rf"(?s)^rows.jsonl:12.*{says}"):
        read_row(format, Record("rows.jsonl:12", record), 0, context(format.protocol))


def test_texts_with_placeholders_are_refused_where_they_would_stand_for_files() -> None:
    record = {"id": "a", "video": "v.mp4", "question": "What is <video>?", "answer": "x"}
    row = read_row(format_named("examples"), Record("f:1", record), 0, context())
    for name in ("swift_rl", "verl"):
        with pytest.raises(RecordError, match="<video>"):
            write_row(format_named(name), row, 0, context(), own=False)


def test_a_question_of_more_options_than_letters_is_a_bad_row() -> None:
    record = {
        "id": "a",
        "video": "v.mp4",
        "question": "Which?",
        "options": [str(n) for n in range(27)],
        "answer": "A",
    }
    row = read_row(format_named("examples"), Record("f:1", record), 0, context())
    with pytest.raises(RecordError, match="at most 26"):
        write_row(format_named("swift_rl"), row, 0, context(), own=False)


def test_times_of_a_part_count_from_the_start_of_the_whole_video_in_ours() -> None:
    record = {
        "qid": "t", "query": "q", "vid": "v", "video_start": 53.06, "video_end": 152.43,
        "relevant_windows": [[9.94, 45.94]], "duration": 99.37,
    }  # fmt: skip
    row = read_row(format_named("taro_eval"), Record("f:1", record), 0, context())
    assert row.example.segments == (Segment(start_seconds=63.0, end_seconds=99.0),)
    assert row.extra == {"clip_seconds": (53.06, 152.43), "duration_seconds": 99.37}
    before = Row(
        row.example.model_copy(update={"segments": (Segment(start_seconds=1, end_seconds=2),)}),
        extra=row.extra,
    )
    with pytest.raises(RecordError, match="53.06"):
        write_row(format_named("taro_eval"), before, 0, context(), own=False)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(words, json_values, max_size=4)


@given(objects, objects)
def test_what_is_beyond_a_record_makes_it_whole_again(
    record: dict[str, Any], written: dict[str, Any]
) -> None:
    assert put_back(written, rest_of(record, written)) == record
    assert rest_of(record, record) == {}
    assert ABSENT not in named(rest_of({}, written)) and not list(named(rest_of({}, written)))
