"""Replay vectors of official functions through this project's own: ``python -m tests.golden.replay FILE.jsonl ...``

A line holds ``id``, ``function``, ``source`` (``repository@commit:path:function``), ``inputs``, ``expected`` and
perhaps ``tol`` and ``expected_alt``. ``ADAPTERS`` of the ``adapters_*`` modules say which of our functions answers for
which (repository, function).
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.golden.checks import TOLERANCE, Check, compare, finish
from timeloupe.eval.scripts.errors import OfficialError

Adapter = Callable[[dict[str, Any]], Any]
"""The row's ``inputs`` -> what the official function returns for them; raises ``OfficialError`` where it raises."""


def adapters() -> dict[tuple[str, str], Adapter]:
    """Return every adapter by (repository, function), from all ``adapters_*`` modules beside this one."""
    return collect("ADAPTERS")


def collect(table: str) -> dict[Any, Any]:
    """Return the union of the dicts called ``table`` of all ``adapters_*`` modules.

    Raises:
        ValueError: Two modules answer for the same thing.
    """
    found: dict[Any, Any] = {}
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if not module.name.startswith("adapters_"):
            continue
        more = getattr(importlib.import_module(f"tests.golden.{module.name}"), table, {})
        if doubles := found.keys() & more.keys():
            raise ValueError(f"{module.name} answers for what another module does: {sorted(doubles)}")
        found |= more
    return found


def replay(path: Path) -> Iterator[Check]:
    """Yield the checks of one vector file; one that cannot be read, or holds no vector, is a failed check."""
    known = adapters()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        yield Check(str(path), f"cannot be read: {error}")
        return
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not numbered:
        yield Check(str(path), "holds no vector")
    for number, line in numbered:
        try:
            row = json.loads(line)
            key = (str(row["source"]).split("@")[0], row["function"])
            _ = row["inputs"], row["expected"]
        except (ValueError, KeyError, TypeError) as error:
            yield Check(f"{path}:{number}", f"is no vector: {error!r}")
            continue
        id = str(row.get("id", f"line {number}"))
        adapter = known.get(key)
        if adapter is None:
            yield Check(id, f"no function of ours answers for {row['function']!r} of {row['source']!r}")
            continue
        yield check_row(id, row, adapter)


def check_row(id: str, row: dict[str, Any], adapter: Adapter) -> Check:
    """Return the check of one vector."""
    tolerance = float(row.get("tol", TOLERANCE))
    try:
        got = adapter(row["inputs"])
    except OfficialError as error:
        got = {"__error__": error.kind}
    except Exception as error:  # a crash of ours is a failure of this row, not the end of the replay
        return Check(id, f"our function raised {type(error).__name__}: {error}")
    check = compare(id, got, row["expected"], tolerance)
    if check.why or "expected_alt" not in row:
        return check
    from tests.golden.adapters_openo3 import ALTERNATIVES

    alternative = ALTERNATIVES.get(row["function"])
    if alternative is None:
        return Check(id, f"no function of ours answers for the expected_alt of {row['function']!r}")
    return compare(f"{id} (expected_alt)", alternative(row["inputs"]), row["expected_alt"], tolerance)


def main(arguments: Sequence[str]) -> int:
    """Replay the files and return the exit code."""
    if not arguments:
        print(__doc__)
        return 2
    return finish(check for path in arguments for check in replay(Path(path)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
