"""The run folder: one directory that says what was run, where, and what came out.

::

    RUN/config.json           the resolved configuration; a folder with another one is refused
    RUN/environment.json      versions, platform and commit of every session that wrote here
    RUN/trajectories.jsonl    one episode per line, appended and flushed
    RUN/.lock                 there while a process writes here (``lock_run``)

A process that is killed while it writes leaves at most one torn last line: readers pass over it, and the next
writer cuts it off. An episode that the machine's fault ended is not done: a resumed run plays it again, and
the later line stands.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import subprocess
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from timeloupe import __version__
from timeloupe.errors import ConfigError, MissingError, RecordError
from timeloupe.trajectory import Record, RecordT, StopReason, Trajectory, to_line

CONFIG = "config.json"
ENVIRONMENT = "environment.json"
TRAJECTORIES = "trajectories.jsonl"
LOCK = ".lock"

EpisodeKey = tuple[str, int]
"""Example id and roll-out index."""

RolloutKey = tuple[str, int, int]
"""Example id, roll-out index and step of the training, 0 where there is none."""

_PACKAGES = (
    "accelerate", "av", "numpy", "openai", "peft", "pillow", "pydantic", "safetensors", "torch", "transformers",
    "typer",
)  # fmt: skip


class RunFolder:
    """A run folder that exists; made by :func:`create_run` or :func:`open_run`.

    Attributes:
        path: The folder.
        config: Its configuration.
    """

    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        self.path = path
        self.config = config

    @property
    def trajectories_path(self) -> Path:
        """The file of episodes; it may not be there yet."""
        return self.path / TRAJECTORIES

    def append(self, trajectory: Trajectory) -> None:
        """Add one episode and hand it to the operating system before returning."""
        append_records(self.trajectories_path, [trajectory])

    def __iter__(self) -> Iterator[Trajectory]:
        """Yield every episode in the order written, replayed ones included.

        Raises:
            RecordError: A whole line is not a valid trajectory; the message names the file and line.
        """
        yield from read_appended(self.trajectories_path, Trajectory)

    def latest(self) -> list[Trajectory]:
        """Return one trajectory per episode, the last one written, in the order in which they first came.

        Those of a training are one per step: a later step plays the same example anew.
        """
        found: dict[RolloutKey, Trajectory] = {}
        for trajectory in self:
            found[rollout_key(trajectory)] = trajectory
        return list(found.values())

    def done(self) -> set[EpisodeKey]:
        """Return the episodes that need not be played again: those that no machine's fault ended."""
        found = {episode_key(item): item.stop for item in self}
        return {key for key, stop in found.items() if stop is not StopReason.INFRASTRUCTURE}

    def drop_faults(self) -> int:
        """Take out the episodes that a machine's fault ended, so that each is there once when it has been played
        again, and older lines of episodes that stand there twice; return how many episodes were taken out."""
        lines: dict[EpisodeKey, tuple[int, StopReason]] = {}
        number = -1
        for number, item in enumerate(self):
            lines[episode_key(item)] = number, item.stop
        kept = {at: None for at, stop in lines.values() if stop is not StopReason.INFRASTRUCTURE}
        if len(kept) <= number:
            with self.trajectories_path.open("rb") as file:
                whole = [line for line in file if line.strip()]
            write_atomic(self.trajectories_path, b"".join(whole[at] for at in kept))
        return len(lines) - len(kept)

    def repair(self) -> int:
        """Cut off a torn last line and end a whole one; return the number of bytes cut off."""
        return repair_appended(self.trajectories_path, Trajectory)


def append_records(path: Path, records: Sequence[Record]) -> None:
    """Add records to a JSONL file and hand them to the operating system before returning."""
    with path.open("ab") as file:
        file.write("".join(to_line(record) + "\n" for record in records).encode())


def read_appended(path: Path, kind: type[RecordT]) -> Iterator[RecordT]:
    """Yield the records of a JSONL file that is appended to; without a file there are none, a torn last line is none.

    Raises:
        RecordError: A whole line is not a valid record; the message names the file, the line and the field.
    """
    if not path.is_file():
        return
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                yield kind.model_validate_json(line)
            except ValidationError as error:
                if not line.endswith(b"\n"):
                    return  # torn by a kill
                first = error.errors()[0]
                where = ".".join(str(step) for step in first["loc"]) or "line"
                raise RecordError(
                    f"{path}:{number} is not a valid {kind.__name__}: {where}: {first['msg']}; "
                    f"fix or remove that line"
                ) from error


def repair_appended(path: Path, kind: type[Record]) -> int:
    """Cut a torn last line off a JSONL file and end a whole one; return the number of bytes cut off."""
    if not path.is_file():
        return 0
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        tail = _tail(file, size)
        if not tail:
            return 0
        try:
            kind.model_validate_json(tail)
        except ValidationError:
            file.truncate(size - len(tail))
            return len(tail)
        file.write(b"\n")
        return 0


def episode_key(trajectory: Trajectory) -> EpisodeKey:
    """Return what tells an episode from the others of its run."""
    return trajectory.example.id, trajectory.rollout_index


def training_step(trajectory: Trajectory) -> int | None:
    """Return the step of the training that the episode was played in, from 0; ``None`` = of no training."""
    step = trajectory.settings.get("step")
    return step if isinstance(step, int) and not isinstance(step, bool) and step >= 0 else None


def rollout_key(trajectory: Trajectory) -> RolloutKey:
    """Return what tells an episode from the others of its run, or of its training."""
    return *episode_key(trajectory), training_step(trajectory) or 0


@contextmanager
def lock_run(path: str | Path) -> Iterator[None]:
    """Hold a run folder for one writer for the time of a ``with`` block; every command that writes a run does.

    The lock is the operating system's (``flock`` on the file ``.lock`` in the folder): it ends with the process however
    that ends. The file is taken away at the end of the block, and the folder if it was made here and nothing is in it.
    Reading needs no lock.

    Args:
        path: The folder; made, with parents, if it is not there.

    Raises:
        ConfigError: Another process holds it, or it is no folder.
    """
    path = Path(path)
    made = not path.is_dir()
    if made and (path.exists() or path.is_symlink()):
        raise ConfigError(
            f"a run needs a folder, got the file or broken link {str(path)!r}, name another path"
        )
    lock = _take_lock(path)
    try:
        yield
    finally:
        with suppress(OSError):  # while it is held: nobody can have taken it in between
            (path / LOCK).unlink()
        os.close(lock)
        if made:
            with suppress(OSError):  # something is in it
                path.rmdir()


def _take_lock(folder: Path) -> int:
    """Return an open file that is locked and is the lock file of the folder, which is made."""
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (
            FileExistsError
        ):  # found by mkdir and gone when it looked what it is: whoever made it has taken it away
            if folder.is_file() or folder.is_symlink():
                raise
            continue
        try:
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:  # whoever made the folder too has just taken it away
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(lock, 200, 0).decode(errors="replace") or "another process"
            os.close(lock)
            raise ConfigError(
                f"run folder {str(folder)!r} is being written, got a second process beside {owner}; wait until that "
                "ends, end it, or name another folder"
            ) from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
                os.close(lock)
                raise
            warnings.warn(
                f"the file system of {str(folder)!r} has no locks ({error}): see that no second process writes there",
                stacklevel=4,
            )
            return lock
        try:
            if os.path.samestat(os.fstat(lock), (folder / LOCK).stat()):
                os.ftruncate(lock, 0)
                os.pwrite(lock, f"process {os.getpid()} on {platform.node()}".encode(), 0)
                return lock
        except FileNotFoundError:
            pass
        os.close(lock)  # its owner took the file away as it was opened: there is another one, or none


def create_run(path: str | Path, config: Mapping[str, Any]) -> RunFolder:
    """Return the run folder at ``path`` with this configuration, made or taken up again.

    A torn last line is cut off, and this session's environment is noted.

    Args:
        path: The folder; parents are made.
        config: The resolved configuration, as JSON data.

    Raises:
        ConfigError: The folder holds another configuration, with the keys that differ, or something else.
    """
    path = Path(path)
    wanted = json.loads(json.dumps(dict(config), allow_nan=False))
    if path.exists() and not path.is_dir():
        raise ConfigError(f"a run needs a folder, got the file {str(path)!r}, name another path")
    if (path / CONFIG).is_file():
        run = open_run(path)
        differing = differing_keys(run.config, wanted)
        if differing:
            shown = "; ".join(f"{key}: there {old}, now {new}" for key, old, new in differing[:8])
            more = f"; and {len(differing) - 8} more" if len(differing) > 8 else ""
            raise ConfigError(
                f"run folder {str(path)!r} holds another configuration ({shown}{more}), "
                f"name another folder or use the same settings"
            )
    elif path.is_dir() and any(item.name != LOCK for item in path.iterdir()):
        raise ConfigError(
            f"folder {str(path)!r} is not empty and holds no {CONFIG}, name a new or empty folder for the run"
        )
    else:
        path.mkdir(parents=True, exist_ok=True)
        write_json(path / CONFIG, wanted)
        run = RunFolder(path, wanted)
    _note_environment(path / ENVIRONMENT)
    run.repair()
    return run


def open_run(path: str | Path) -> RunFolder:
    """Return the run folder at ``path`` for reading.

    Raises:
        MissingError: There is none.
        ConfigError: Its configuration is not a JSON object.
    """
    path = Path(path)
    if not (path / CONFIG).is_file():
        raise MissingError(f"no run at {str(path)!r}, expected a folder with {CONFIG}{runs_below(path)}")
    config = read_json(path / CONFIG)
    if not isinstance(config, dict):
        raise ConfigError(f"{str(path / CONFIG)!r} must hold a JSON object, got {type(config).__name__}")
    return RunFolder(path, config)


def runs_below(path: Path) -> str:
    """Return which runs a folder holds that is none itself, for the end of an error's message; "" = it holds none."""
    found = sorted(str(file.parent) for file in path.glob(f"*/{CONFIG}"))
    return f"; it holds runs, name one of them: {', '.join(map(repr, found[:8]))}" if found else ""


def differing_keys(
    old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = ""
) -> list[tuple[str, str, str]]:
    """Return (dotted key, old value, new value) of every leaf that differs, values as JSON or ``nothing``."""
    found: list[tuple[str, str, str]] = []
    for key in sorted(old.keys() | new.keys()):
        one, other = old.get(key), new.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            found += differing_keys(one, other, f"{prefix}{key}.")
        elif one != other or (key in old) != (key in new):
            texts = [json.dumps(side[key]) if key in side else "nothing" for side in (old, new)]
            found.append((prefix + key, texts[0], texts[1]))
    return found


def write_atomic(path: str | Path, data: bytes) -> None:
    """Write a file so that a reader sees the old or the new content, never a part, even after a crash."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: str | Path, value: Any) -> None:
    """Write a value as readable strict JSON, atomically."""
    write_atomic(path, (json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode())


def snapshot_environment() -> dict[str, Any]:
    """Return versions, platform and, in a git checkout, the commit that the code was at."""
    versions: dict[str, str] = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "timeloupe": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "num_cpus": os.cpu_count(),
        "packages": versions,
    }


def _commit() -> str | None:
    """The checkout's commit, with ``+changes`` if its files differ from it; ``None`` outside a checkout."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=root, capture_output=True, text=True, timeout=10, check=True
        )
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _note_environment(path: Path) -> None:
    sessions: list[dict[str, Any]] = read_json(path)["sessions"] if path.is_file() else []
    now = snapshot_environment()
    if not sessions or sessions[-1] != now:
        write_json(path, {"sessions": [*sessions, now]})


def read_json(path: Path) -> Any:
    """Return the JSON of a file.

    Raises:
        ConfigError: It is not valid JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{str(path)!r} is not valid JSON: {error}") from error


def _tail(file: Any, size: int) -> bytes:
    """Return what follows the last newline of an open file."""
    step = 1 << 16
    tail = b""
    at = size
    while at > 0 and b"\n" not in tail:
        at = max(0, at - step)
        file.seek(at)
        tail = file.read(size - at)
    return tail[tail.rfind(b"\n") + 1 :]
