"""Read the prediction files of temporal grounding that official scripts write, in every layout, told by content.

1. TaRO: lines of ``original_data`` and ``model_output`` (or ``pred_relevant_window``)
2. Time-R1: lines of ``qid, pred, target, output_text``
3. MUSEG: JSON list of the annotation's records with ``result`` {output, conversation}, statistics at the end
4. TimeChat, TimeSuite: JSON list of ``vname, query, generated_cap, id``, or its formatted form {id: {timestamp, ...}}
5. TimeLens, lmms-eval: ``video>>>query>>>window`` to a text or {timestamps, answers}
6. lmms-eval ``--log_samples``: lines of ``doc`` and ``filtered_resps``
7. VideoTemp-o3: lines of the benchmark's records with ``response``; without id, video and question in their order
8. E.T. Chat: ``vid, query, span, pred``; VideoMind: the same with ``pred`` a ranked list

A prediction is the model's text where the file has it, else the windows that the script read or was given.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from timeloupe.errors import MissingError, RecordError
from timeloupe.eval.files.grounding import only_record, unfolded, whole_json
from timeloupe.eval.files.records import Record, read_records, records_of
from timeloupe.eval.scoring import Predictions, Row, Window
from timeloupe.eval.scripts.grounding import plain_query

LAYOUTS = "original_data + model_output, qid + pred + target, result, generated_cap + id, {id: {timestamp}}, "
LAYOUTS += "video>>>query>>>window, doc + filtered_resps, response + timestamp, query + pred + span"

SAME_SECONDS = 1e-3

MUSEG_ASKS = "textual sentence:"
"""What MUSEG's questions on one moment end with, before the query."""

_NUMBERED = re.compile(r".*_(\d{1,9})")

Found = tuple[str, Any]
"""A row's id and its prediction."""


def read_predictions(path: Path, rows: Sequence[Row]) -> Predictions:
    """Return the predictions of a file by row id.

    Raises:
        MissingError: It is a folder.
        RecordError: The file is in none of the layouts, or a record is not valid or of no row.
    """
    if path.is_dir():
        raise MissingError(f"{str(path)!r} is a folder, expected one file of predictions")
    index = _Index(rows)
    found: dict[str, Any] = {}
    for at, record in enumerate(_records(path)):
        if "tot" in record.fields and "result" not in record.fields:
            continue  # MUSEG's statistics
        id, prediction = _read(record, at, index)
        found[id] = prediction
    return found


def _records(path: Path) -> Iterator[Record]:
    whole = whole_json(path)
    if isinstance(whole, list):
        records = records_of(whole, str(path))
    elif isinstance(whole, dict):
        if whole and all(isinstance(one, dict) and "timestamp" in one for one in whole.values()):
            for id, fields in whole.items():
                yield Record(f"{path}, key {id!r:.60}", {"timesuite_id": id} | fields)
            return
        records = [only_record(path, whole)]
    else:
        records = read_records(path)
    for record in records:
        yield from unfolded(record)


class _Index:
    """Rows by id, by place, and by video and query."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        self.by_id = {row.id: row for row in rows}
        self.by_query: dict[tuple[str, str], list[Row]] = {}
        for row in rows:
            self.by_query.setdefault(_query_key(row.video, row.question), []).append(row)

    def asked(self, record: Record, video: str, query: str, window: Any) -> str:
        """Return the id of the row of that video and query; of several, the one with that true window."""
        some = self.by_query.get(_query_key(video, query), [])
        if len(some) > 1:
            some = [row for row in some if _same(window, row.windows)] or some[:1]
        if not some:
            raise RecordError(f"{record.where}: no row is of video {video!r:.60} and query {query!r:.80}")
        return some[0].id

    def placed(self, record: Record, at: int, window: Any) -> str:
        """Return the id of the row at that place, whose true window must be the same."""
        if at >= len(self.rows):
            raise RecordError(f"{record.where}: the benchmark has only {len(self.rows)} rows")
        if not _same(window, self.rows[at].windows):
            raise RecordError(
                f"{record.where}: the true window {window!r:.60} is not that of row {at}, "
                f"{self.rows[at].windows!r:.60}; check that the annotations are the ones predicted on"
            )
        return self.rows[at].id


def _query_key(video: str, query: str) -> tuple[str, str]:
    return PurePosixPath(video).stem, plain_query(query.rpartition(MUSEG_ASKS)[2]).lower()


def _same(window: Any, windows: Sequence[Window]) -> bool:
    """Whether a window, or list of windows, begins where the row's first begins and ends no earlier than it does.

    Ends are cut at the video's end in some copies of an annotation.
    """
    first = window[0] if window and isinstance(window[0], list | tuple) else window
    if not first or not windows or len(first) < 2:
        return False
    start, end = windows[0]
    return abs(first[0] - start) <= SAME_SECONDS and first[1] >= min(start, end) - SAME_SECONDS


# -- the layouts -------------------------------------------------------------------------------------------------------


def _read(record: Record, at: int, index: _Index) -> Found:
    for needed, read in _READERS:
        if all(name in record.fields for name in needed):
            return read(record, at, index)
    raise RecordError(f"{record.where} has fields {sorted(record.fields)[:10]}, known layouts have {LAYOUTS}")


def _taro(record: Record, at: int, index: _Index) -> Found:
    original = record.value("original_data")
    if not isinstance(original, dict) or "qid" not in original:
        raise record.fault(
            "original_data", f"must be the annotation's record with a qid, got {original!r:.80}"
        )
    if record.has("model_output"):
        return str(original["qid"]), record.text("model_output")
    return str(original["qid"]), _windows(record, "pred_relevant_window")


def _time_r1(record: Record, at: int, index: _Index) -> Found:
    id = record.text("qid")
    if id not in index.by_id:
        # The script numbers the rows itself, behind the name of the data set.
        match = _NUMBERED.fullmatch(id)
        if match is None:
            raise record.fault("qid", f"is of no row: {id!r:.60}")
        id = index.placed(record, int(match.group(1)), record.value("target"))
    return id, record.text("output_text") if record.has("output_text") else _windows(record, "pred")


def _museg(record: Record, at: int, index: _Index) -> Found:
    id = index.asked(record, record.text("video"), record.text("question"), record.value("groundtruth"))
    result = Record(f"{record.where}, result", record.value("result"))
    if result.has("conversation"):
        last = result.texts("conversation")[-1]
        if last.startswith("assistant: "):
            return id, last.removeprefix("assistant: ")
    return id, f"<answer>{result.text('output')}</answer>"


def _timechat(record: Record, at: int, index: _Index) -> Found:
    return _numbered(record, index, "id", "vname"), record.text("generated_cap")


def _timesuite(record: Record, at: int, index: _Index) -> Found:
    return _numbered(record, index, "timesuite_id", "vid"), _windows(record, "timestamp")


def _numbered(record: Record, index: _Index, name: str, video: str) -> str:
    """The id of the row with that id, else at that place if it is of that video."""
    id = record.text(name)
    if id in index.by_id:
        return id
    row = index.rows[int(id)] if id.isascii() and id.isdigit() and int(id) < len(index.rows) else None
    wanted = PurePosixPath(record.text(video)).stem
    if row is None or PurePosixPath(row.video).stem != wanted:
        raise record.fault(name, f"is of no row of video {wanted!r:.60}: {id!r:.60}")
    return row.id


def _keyed(record: Record, at: int, index: _Index) -> Found:
    key, prediction = record.text("key"), record.value("prediction")
    if not isinstance(prediction, str | dict):
        raise record.fault("prediction", f"must be a text or {{timestamps, answers}}, got {prediction!r:.80}")
    if key in index.by_id:
        return key, prediction
    return index.asked(record, record.text("video"), record.text("query"), record.value("span")), prediction


def _logged(record: Record, at: int, index: _Index) -> Found:
    doc = Record(f"{record.where}, doc", record.value("doc"))
    name = {True: "query", False: "caption"}["query" in doc.fields]
    video = "video_path" if "video_path" in doc.fields else "video"
    window = doc.value("span" if "span" in doc.fields else "timestamp")
    reply = record.value("filtered_resps")
    while isinstance(reply, list) and reply:
        reply = reply[0]
    if not isinstance(reply, str):
        raise record.fault("filtered_resps", f"must hold a text, got {reply!r:.80}")
    return index.asked(doc, doc.text(video), doc.text(name), window), reply


def _videotemp(record: Record, at: int, index: _Index) -> Found:
    window, reply = record.value("timestamp"), record.value("response")
    if reply is not None and not isinstance(reply, str):
        raise record.fault("response", f"must be a text, got {reply!r:.80}")
    if record.has("id") and record.text("id") in index.by_id:
        return record.text("id"), reply
    if record.has("videos") and record.has("question"):
        # The script's threads write in any order.
        return index.asked(record, record.texts("videos")[0], record.text("question"), window), reply
    return index.placed(record, at, window), reply


def _etchat(record: Record, at: int, index: _Index) -> Found:
    video = record.text("vid" if "vid" in record.fields else "video_path")
    prediction = _windows(record, "pred") if record.has("pred") else []
    return index.asked(record, video, record.text("query"), record.value("span")), prediction


def _windows(record: Record, name: str) -> list[Any]:
    value = record.value(name)
    if not isinstance(value, list):
        raise record.fault(name, f"must be a window or a list of them, got {value!r:.80}")
    return [] if any(one is None for one in value) else value


_READERS: tuple[tuple[tuple[str, ...], Callable[[Record, int, _Index], Found]], ...] = (
    (("original_data",), _taro),
    (("qid", "pred", "target"), _time_r1),
    (("video", "question", "groundtruth", "result"), _museg),
    (("vname", "generated_cap", "id"), _timechat),
    (("timesuite_id", "timestamp"), _timesuite),
    (("key", "prediction"), _keyed),
    (("doc", "filtered_resps"), _logged),
    (("query", "pred", "span"), _etchat),
    (("timestamp", "response"), _videotemp),
)
