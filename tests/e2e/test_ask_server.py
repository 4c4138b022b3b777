"""``timeloupe ask --base-url``, processes of their own, against a real server in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.servers import warm
from tests.servers.process import Server, serving
from timeloupe.cli.main import main
from timeloupe.cli.policies import find_key, is_loopback
from timeloupe.errors import ConfigError
from timeloupe.trajectory import Trajectory
from timeloupe.world.encode import WorldVideo, make_videos
from timeloupe.world.script import EVALUATION_SEEDS, ScriptSettings

KEY = "sk-abcdefghijklmnop"
AS_SMALL = ("--settings-from", "small", "--image-format", "png")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> WorldVideo:
    folder = tmp_path_factory.mktemp("world")
    return next(
        make_videos(folder, seed=EVALUATION_SEEDS[77], num_videos=1, settings=ScriptSettings(90, 120))
    )


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "OPENAI_API_KEY"}
    return warm.run("ask", *arguments, env=environment)


def question_of(world: WorldVideo, index: int) -> list[str]:
    example = world.examples[index]
    options = [one for option in example.options for one in ("--options", option)]
    return [str(world.path), example.question, *options, "--json"]


def played(line: str) -> list[Any]:
    """What happened, without who played and how long it took."""
    found = Trajectory.model_validate_json(line)
    return [found.stop, found.prompt, found.answer] + [
        (turn.generation.text, turn.generation.finish, turn.call, turn.observation) for turn in found.turns
    ]


def test_two_questions_at_once_get_what_the_small_model_answers(
    server: Server, world: WorldVideo, capsys: pytest.CaptureFixture[str]
) -> None:
    server.behave()
    ask_server = ("--base-url", server.url, "--send", "video", *AS_SMALL)
    with ThreadPoolExecutor(2) as pool:
        served = list(pool.map(lambda index: command(*question_of(world, index), *ask_server), (0, 1)))
    for index, done in enumerate(served):
        assert done.returncode == 0, done.stderr
        code, here, _ = ask(capsys, *question_of(world, index), "--policy", "small")
        assert code == 0 and played(done.stdout) == played(here)
    first = Trajectory.model_validate_json(served[0].stdout)
    assert first.policy == "openai:small" and first.protocol == "small" and first.crops
    assert all(turn.generation.usage.prompt_tokens for turn in first.turns)


def ask(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run the command in this process; return exit code, stdout and stderr."""
    code = main(["ask", *arguments])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_a_key_from_the_environment(
    server: Server,
    world: WorldVideo,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    server.behave(key=KEY)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody-else")
    base = (*question_of(world, 0), "--base-url", server.url, *AS_SMALL, "--save", str(tmp_path / "run"))
    code, out, err = ask(capsys, *base)
    said = json.loads(out)["problem"]["message"]
    assert code == 1 and "Incorrect API key" in said and "--api-key-env" in said
    monkeypatch.setenv("MY_KEY", f"{KEY}\n")
    code, out, err = ask(capsys, *base, "--api-key-env", "MY_KEY", "--logprobs", "--max-new-tokens", "9")
    turn = Trajectory.model_validate_json(out).turns[0].generation
    assert code == 0 and turn.token_ids is not None and len(turn.token_ids) == 9
    saved = "".join(path.read_text() for path in (tmp_path / "run").iterdir())
    assert KEY not in saved + out + err and "somebody" not in saved + out + err
    keys = [row["headers"]["authorization"] for row in server.requests()]
    assert "Bearer sk-of-somebody-else" not in keys, (
        "a key for elsewhere is not given to this machine's server"
    )


def test_a_dead_port_a_slow_and_a_missing_model_are_told(
    server: Server, world: WorldVideo, capsys: pytest.CaptureFixture[str]
) -> None:
    here = [*question_of(world, 0), *AS_SMALL]
    code, out, err = ask(capsys, *here, "--base-url", "http://127.0.0.1:9/v1")
    assert code == 1 and "nothing listens at" in json.loads(out)["problem"]["message"]
    server.behave(models=["one", "two"])
    code, out, err = ask(capsys, *here, "--base-url", server.url)
    assert (code, out) == (2, "") and "name one with --model: one, two" in err
    code, out, err = ask(capsys, *here, "--base-url", server.url, "--model", "three")
    assert code == 1 and "it serves: one, two" in json.loads(out)["problem"]["message"]
    with serving("--mode", "hang") as slow:
        code, out, err = ask(capsys, *here, "--base-url", slow.url, "--model", "small", "--timeout", "0.2")
    assert code == 1 and "within 0.2 s in 3 tries" in json.loads(out)["problem"]["message"]


def test_it_needs_no_torch(server: Server, world: WorldVideo) -> None:
    server.behave()
    code = (
        "import sys; from timeloupe.cli.main import main; code = main(sys.argv[1:]);"
        "heavy = {'torch', 'transformers', 'safetensors'} & sys.modules.keys();"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    arguments = ["ask", *question_of(world, 0), "--base-url", server.url, *AS_SMALL]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--policy", "openai"], "--policy openai needs --base-url"),
        (["--policy", "small", "--base-url", "http://h/v1"], "--base-url does not go with --policy small"),
        (["--base-url", "http://h/v1", "--script", "x"], "--script does not go with --policy openai"),
        (["--send", "video"], "--send does not go with --policy small"),
        (["--logprobs"], "--logprobs does not go with --policy small"),
        (["--base-url", "h:80"], "--base-url, got 'h:80', allowed: http(s)://HOST"),
        (["--base-url", "http://h/v1", "--send", "gif"], "send, got 'gif', allowed: images, video"),
        (["--base-url", "http://h/v1", "--send", "video", "--time-format", "{}"], "--time-format goes with --send"),
        (["--base-url", "http://h/v1", "--time-format", "now"], "time format, got 'now'"),
        (["--base-url", "http://h/v1", "--timeout", "0"], "timeout, got 0.0"),
        (["--base-url", "http://h/v1", "--api-key-env", "NO_SUCH"], "--api-key-env names 'NO_SUCH', which is not set"),
        (["--base-url", "http://h/v1", "--max-new-tokens", "0"], "max_new_tokens"),
        (["--base-url", "http://h/v1", "--timeout", "1e12"], "timeout, got 1000000000000.0, allowed: seconds > 0"),
        (["--base-url", "http://h/v1", "--model", ""], "--model, got ''"),
        (["--base-url", "http://h/v1", "--model", "a\udcff"], "--model, got 'a\\udcff', allowed: Unicode"),
        (["--base-url", "http://h/v1", "--time-format", "{0.hex}"], "time format, got '{0.hex}'"),
        (["--base-url", "http://h/v1", "--max-request", "much"], "--max-request, got 'much'"),
        (["--base-url", "http://h/v1", "--max-request", "0"], "max_request_bytes, got 0"),
        (["--base-url", "http://256.256.256.256/v1"], "--base-url, got 'http://256.256.256.256/v1'"),
        (["--base-url", "http://h/v1", "--options", "a|\udcff"], "the question and its options, got '\\udcff'"),
    ],
)  # fmt: skip
def test_wrong_use_says_what_is_allowed(
    world: WorldVideo, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    code, out, err = ask(capsys, str(world.path), "What is it?", *arguments, "--save", str(run))
    assert (code, out) == (2, "") and says in err and err.count("\n") == 1
    assert not run.exists(), "nothing was played, so there is no run"


def test_whose_key_is_sent_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-a ")
    monkeypatch.setenv("OTHER", "sk-b")
    for host in (
        "localhost", "LOCALHOST", "localhost.", "127.0.0.1", "127.3.2.1", "127.1", "2130706433", "0.0.0.0", "[::1]",
        "[::]", "[::ffff:127.0.0.1]", "a.localhost",
    ):  # fmt: skip
        assert is_loopback(f"http://{host}:8000/v1")
        assert find_key(f"http://{host}:8000/v1", None) is None
        assert find_key(f"http://{host}:8000/v1", "OTHER") == "sk-b"
    for host in (
        "api.openai.com",
        "localhost.example.com",
        "10.0.0.1",
        "127.0.0.1.example.com",
        "[::ffff:10.0.0.1]",
    ):
        assert find_key(f"https://{host}/v1", None) == "sk-a"
    monkeypatch.delenv("OPENAI_API_KEY")
    assert find_key("https://api.openai.com/v1", None) is None
    monkeypatch.setenv("BLANK", " \n")
    with pytest.raises(ConfigError, match="not set or empty"):
        find_key("https://api.openai.com/v1", "BLANK")
    with pytest.raises(ConfigError, match="not set"):
        find_key("https://api.openai.com/v1", "OPENAI_API_KEY")
