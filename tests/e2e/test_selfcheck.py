"""`timeloupe selfcheck` against a real server process over the small model, honest and with one fault at a time."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.servers.process import serving
from timeloupe.cli.main import main

SMALL = ["--settings-from", "small", "--image-format", "png"]
FORMS = {"video": ["--send", "video"], "images": ["--send", "images", "--time-format", "{:.0f}"]}
FINDINGS = {
    "none": set(),
    "clock_ignored": {"clock_ignored"},
    "times_dropped": {"times_dropped"},
    "indices_for_seconds": {"indices_for_seconds"},
    "stop_stripped": {"stop_stripped"},
    "order_reversed": {"order_reversed"},
    "seed_ignored": {"seed_ignored"},
    "frames_dropped": {"frames_dropped"},
}

SetFault = Callable[..., str]


@pytest.fixture(scope="module")
def faulty() -> Iterator[SetFault]:
    """Sets the fault of a server process and returns its URL."""
    with serving(module="faulty_server") as server:

        def set_fault(fault: str, *, bare: bool = False) -> str:
            body = json.dumps({"fault": fault, "bare": bare}).encode()
            there = server.url.removesuffix("/v1") + "/fault"
            request = urllib.request.Request(there, body, {"content-type": "application/json"})
            urllib.request.urlopen(request, timeout=60).close()
            return server.url

        yield set_fault


def check(url: str, *words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code = main(["selfcheck", "--base-url", url, *SMALL, *words, "--json"])
    return code, json.loads(capsys.readouterr().out)


def named(document: dict[str, Any]) -> set[str]:
    return {one["finding"] for one in document["checks"] if one["finding"]}


@pytest.mark.parametrize("fault", FINDINGS)
def test_each_fault_is_named_and_no_other(
    faulty: SetFault, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, document = check(faulty(fault), *FORMS["video"], capsys=capsys)
    assert named(document) == FINDINGS[fault], document
    # A stripped stop string is mended, so no score is wrong for it.
    assert code == (fault not in ("none", "stop_stripped"))
    assert document["faults"] == code
    wrong = [one for one in document["checks"] if one["verdict"] == "wrong"]
    assert all(one["seen"] and one["means"] and one["do"] for one in wrong)
    if fault == "none":
        assert {one["verdict"] for one in document["checks"]} == {"ok"}


@pytest.mark.parametrize("fault", ["none", "times_dropped"])
def test_frames_as_images_are_checked_too(
    faulty: SetFault, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, document = check(faulty(fault), *FORMS["images"], capsys=capsys)
    assert named(document) == FINDINGS[fault], document
    assert code == (fault != "none")


def test_replies_alone_are_enough_where_nothing_is_counted(
    faulty: SetFault, capsys: pytest.CaptureFixture[str]
) -> None:
    _, document = check(faulty("clock_ignored", bare=True), *FORMS["video"], capsys=capsys)
    assert named(document) == {"clock_ignored", "usage_missing", "logprobs_missing"}, document
    (room,) = (one for one in document["checks"] if one["name"] == "room")
    assert room["verdict"] == "cannot tell" and "token counts" in room["seen"]


def test_a_model_that_is_not_understood_gives_no_false_alarm(
    faulty: SetFault, capsys: pytest.CaptureFixture[str]
) -> None:
    """The small model knows no protocol but its own: replies cannot be read, and only that is said."""
    code = main(["selfcheck", "--base-url", faulty("none"), *SMALL, *FORMS["video"], "--protocol", "taro"])
    said = capsys.readouterr().out
    assert code == 1 and " 1 wrong" in said and "grammar" in said, said
    assert "--protocol" in said


def test_no_server_is_no_fault_of_a_server(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selfcheck", "--base-url", "http://127.0.0.1:9/v1", "--model", "m"]) == 3
    assert "nothing listens" in capsys.readouterr().err
    assert main(["selfcheck"]) == 2
    assert "--base-url" in capsys.readouterr().err
    assert main(["selfcheck", "--base-url", "http://127.0.0.1:9/v1", "--protocol", "none"]) == 2
    assert "videotemp" in capsys.readouterr().err
    assert main(["selfcheck", "--base-url", "http://127.0.0.1:9/v1", "--frames", "1000000"]) == 2
    assert "2048" in capsys.readouterr().err
