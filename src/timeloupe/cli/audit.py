"""``timeloupe audit``: does an answer depend on the evidence that it names?"""

from __future__ import annotations

import functools
import hashlib
import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from timeloupe.cli.flags import (
    ApiKeyEnvFlag,
    BaseUrlFlag,
    CacheBytesFlag,
    CacheDirFlag,
    ImageFormatFlag,
    MaxRequestFlag,
    ModelFlag,
    NoLogitBiasFlag,
    PolicyFlag,
    ScriptFlag,
    SendFlag,
    SettingsFromFlag,
    ThreadsFlag,
    TimeFormatFlag,
    TimeoutFlag,
)
from timeloupe.cli.policies import POLICIES, PolicyFlags, policy_facts, policy_name
from timeloupe.errors import ConfigError, boundary

if TYPE_CHECKING:
    from rich.console import Console

    from timeloupe.eval.audit import Auditor, AuditRow
    from timeloupe.policy.base import Policy
    from timeloupe.policy.local import LocalPolicy
    from timeloupe.runs import RunFolder
    from timeloupe.trajectory import Trajectory

POLICY_KEYS = (
    "model", "script", "send", "time_format", "image_format", "max_request", "base_url", "timeout", "settings_from",
)  # fmt: skip
"""Flags of a policy that an audit takes from the run where none of them is given."""


def audit(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.", show_default=False)],
    policy: PolicyFlag = None,
    model: ModelFlag = None,
    script: ScriptFlag = None,
    base_url: BaseUrlFlag = None,
    api_key_env: ApiKeyEnvFlag = None,
    send: SendFlag = None,
    time_format: TimeFormatFlag = None,
    image_format: ImageFormatFlag = None,
    timeout: TimeoutFlag = None,
    max_request: MaxRequestFlag = None,
    settings_from: SettingsFromFlag = None,
    no_logit_bias: NoLogitBiasFlag = False,
    evidence: Annotated[
        str, typer.Option(help="cited: what the answer names; true: what the annotation says, where it does.")
    ] = "cited",
    seed: Annotated[int, typer.Option(help="Draws the changed frames: same seed, same frames.")] = 0,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Only the first so many episodes with evidence.", show_default=False),
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests under way at once.")] = 16,
    fail_on_error: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="With a larger share lost to machines, print no table and exit with 1."
        ),
    ] = 0.05,
    cache_dir: CacheDirFlag = None,
    cache_bytes: CacheBytesFlag = None,
    threads: ThreadsFlag = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Ask the answered questions of a run again with other frames: without the evidence that the answer names, with as
    much cut out elsewhere, with the evidence only, and with its pictures shuffled. The model is the run's own unless
    another is named. What was asked is kept in RUN/audit.jsonl; the same command goes on with what is missing.

    Raises:
        ConfigError: A flag is wrong, or no episode of the run names evidence (exit code 2).
        MissingError: There is no run, or a file of the model is not there (exit code 3).
    """
    from rich.console import Console

    from timeloupe.runs import lock_run, open_run

    console = Console(stderr=True, highlight=False)
    flags = {key: value for key, value in locals().items() if key not in ("Console", "lock_run", "open_run")}
    folder = open_run(run)
    with lock_run(run):
        raise typer.Exit(_Audit(folder, flags, console).go())


class _Audit:
    """One call of the command."""

    def __init__(self, run: RunFolder, flags: dict[str, Any], console: Console) -> None:
        from timeloupe.eval.audit import auditable
        from timeloupe.eval.perturb import EVIDENCE
        from timeloupe.prompt.protocol import PROTOCOLS

        self.run, self.flags, self.console = run, flags, console
        self.episodes = run.latest()
        if flags["evidence"] not in EVIDENCE:
            raise boundary("--evidence", flags["evidence"], EVIDENCE)
        self.spans = EVIDENCE[flags["evidence"]]
        found, self.left_out = auditable(self.episodes, self.spans)
        strange = {one.protocol for one in found} - PROTOCOLS.keys()
        if strange:
            raise ConfigError(
                f"the run has the protocol {sorted(strange)[0]!r}, allowed: {', '.join(PROTOCOLS)}"
            )
        if not found:
            counts = ", ".join(f"{count} with {reason}" for reason, count in self.left_out.items() if count)
            raise ConfigError(
                f"{str(run.path)!r} has nothing to audit: of {len(self.episodes)} episodes none answers and has "
                f"evidence, segments or boxes that it names or a crop ({counts or 'no episode'}); audit a run that "
                "uses the tool, or take the annotation's segments with --evidence true"
            )
        self.chosen = found if flags["limit"] is None else found[: flags["limit"]]

    def go(self) -> int:
        """Ask what is missing, print the tables, and return the exit code."""
        from timeloupe.cli.eval_progress import two_stages
        from timeloupe.eval.audit import AUDIT, drop_faults, read_rows
        from timeloupe.runs import append_records

        path = self.run.path / AUDIT
        policy = self._policy()
        auditor = self._auditor(policy)
        drop_faults(path, auditor.audit)
        done = read_rows(path, auditor.audit)
        left = [one for one in self.chosen if not _whole(one, done)]
        self.console.print(
            f"{len(self.chosen)} of {len(self.episodes)} episodes, {len(left)} to ask again with {policy.name}",
            markup=False, soft_wrap=True,
        )  # fmt: skip
        size = max(1, self.flags["concurrency"] // 4)
        stop, asked = threading.Event(), 0
        with two_stages(stop, self.console, "questions"), self.console.status("asking") as status:
            for at in range(0, len(left), size):
                if stop.is_set():
                    self.console.print("stopped; the same command goes on with what is missing")
                    return 130
                rows = auditor.ask(left[at : at + size], frozenset(done))
                append_records(path, rows)
                asked += len(rows)
                status.update(f"{min(at + size, len(left))} of {len(left)} episodes")
        return self._report(policy, auditor, asked)

    def _policy(self) -> Policy:
        flags = self.flags
        stored = self._stored()
        named = ("policy", "model", "script", "base_url")
        if all(flags[key] is None for key in named):
            if stored is None:
                raise ConfigError(
                    f"{str(self.run.path)!r} does not say which model played it (it is no run of `timeloupe eval`): "
                    "name one with --policy, --model or --base-url"
                )
            flags = flags | {
                key: stored.get(key) if flags[key] is None else flags[key] for key in POLICY_KEYS
            }
            flags["policy"] = stored.get("policy")
            flags["no_logit_bias"] = flags["no_logit_bias"] or stored.get("no_logit_bias", False)
            flags["script"] = None if flags["script"] is None else Path(flags["script"])
        elif flags["base_url"] is not None and stored is not None and stored.get("policy") == "openai":
            for key in ("model", "send", "time_format", "image_format", "max_request", "settings_from"):
                flags[key] = stored.get(key) if flags[key] is None else flags[key]
            flags["no_logit_bias"] = flags["no_logit_bias"] or stored.get("no_logit_bias", False)
        keys = (*POLICY_KEYS, "api_key_env", "threads", "no_logit_bias")
        given: dict[str, Any] = {key: flags[key] for key in keys}
        wanted = PolicyFlags(**given)
        kind = policy_name(flags["policy"], wanted)
        policy = POLICIES[kind](wanted).policy
        if kind == "openai":
            policy.concurrency = flags["concurrency"]  # type: ignore[attr-defined]
        return policy

    def _stored(self) -> dict[str, Any] | None:
        """The flags that the run was played with, if it says them."""
        from timeloupe.cli.eval_session import SESSION

        flags = self.run.config.get("flags")
        if self.run.config.get("command") != "eval" or not isinstance(flags, dict):
            return None
        path = self.run.path / SESSION
        session = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return flags | {key: session.get(key) for key in ("base_url", "timeout", "api_key_env")}

    def _auditor(self, policy: Policy) -> Auditor:
        from timeloupe.cli.frame_cache import make_cache
        from timeloupe.environment.rollout import DEFAULT_CACHE_BYTES
        from timeloupe.eval.audit import Auditor
        from timeloupe.prompt.protocol import PROTOCOLS
        from timeloupe.video.cache import FrameCache

        facts = {key: value for key, value in policy_facts(policy).items() if key != "base_url"}
        name = json.dumps(
            ["audit", 1, facts, self.flags["seed"], self.flags["evidence"]], sort_keys=True, default=str
        )
        logprobs = None
        if hasattr(policy, "loaded"):
            from timeloupe.policy.forced import reply_logprobs

            logprobs = functools.partial(reply_logprobs, cast("LocalPolicy", policy))
        cache = make_cache(self.flags["cache_dir"], self.flags["cache_bytes"]) or FrameCache(
            DEFAULT_CACHE_BYTES
        )
        digest = hashlib.sha256(name.encode()).hexdigest()[:16]
        return Auditor(digest, policy, PROTOCOLS, self.flags["seed"], cache, logprobs, self.spans)

    def _report(self, policy: Policy, auditor: Auditor, asked: int) -> int:
        from timeloupe.cli.show import printable
        from timeloupe.eval.audit import AUDIT, all_rows
        from timeloupe.eval.audit_table import facts, lines_of, reproduced, tables

        wanted = {(one.example.id, one.rollout_index): one for one in self.chosen}
        rows = [
            row
            for row in all_rows(self.run.path / AUDIT, auditor.audit)
            if (row.id, row.rollout_index) in wanted
        ]
        faults = [row for row in rows if row.outcome == "fault"]
        share = len(faults) / max(len(rows), 1)
        whole = share <= self.flags["fail_on_error"]
        found = tables(rows, seed=self.flags["seed"]) if whole else {}
        same, known = reproduced(rows, list(wanted.values()))
        for row in faults[:3]:
            self.console.print(f"{row.id}: {row.reason}", style="red", markup=False, soft_wrap=True)
        if self.flags["as_json"]:
            document = {
                "run": str(self.run.path), "audit": auditor.audit, "policy": policy.name,
                "evidence": self.flags["evidence"],
                "episodes": len(self.episodes), "audited": len(self.chosen), "left_out": self.left_out,
                "asked_now": asked, "lost": len(faults), "reproduced": same, "compared_with_record": known,
                "tables": facts(found),
            }  # fmt: skip
            typer.echo(json.dumps(document, allow_nan=False))
        else:
            left = ", ".join(f"{count} with {reason}" for reason, count in self.left_out.items() if count)
            typer.echo(
                printable(
                    f"{len(self.chosen)} of {len(self.episodes)} episodes, asked again by {policy.name}"
                    + (f"; not audited: {left}" if left else "")
                )
            )
            typer.echo(f"with the same frames, at temperature 0, {same} of {known} give the recorded answer")
            for line in lines_of(found):
                typer.echo(printable(line))
        if not whole:
            self.console.print(
                f"{len(faults)} of {len(rows)} replies were lost to machines ({share:.1%}, allowed are "
                f"{self.flags['fail_on_error']:.1%}): no table. Mend the cause and give the same command again",
                style="red", soft_wrap=True,
            )  # fmt: skip
            return 1
        return 0


def _whole(one: Trajectory, done: dict[tuple[str, int, str], AuditRow]) -> bool:
    from timeloupe.eval.perturb import CONDITIONS

    return all((one.example.id, one.rollout_index, name) in done for name in CONDITIONS)
