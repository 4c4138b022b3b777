"""The processes that ``rollout_speed.py`` measures: each does its work once for every line it is sent.

A worker answers with a line of JSON: CPU seconds, prompt and new tokens, and its peak memory so far.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from speed_cases import CASES, GROUP, TURNS, Case, Group, checkpoint_of, message, picture_prompt

Counts = dict[str, int]


def serve(work: Callable[[int], Counts]) -> None:
    """Do ``work`` for each line of standard input, and say what it cost."""
    for number, _ in enumerate(sys.stdin):
        began = time.process_time()
        counts = work(number)
        answer({"cpu": time.process_time() - began, **counts})


def answer(found: dict[str, Any]) -> None:
    """Write one line with the process's peak memory."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({**found, "peak_mib": peak}), flush=True)


def ours_policy(checkpoint: Path) -> Any:
    """Return our local policy, which here never ends a turn by itself."""
    from timeloupe.model.load import load_model
    from timeloupe.policy.local import LocalPolicy

    policy = LocalPolicy(load_model(checkpoint, device="cpu"))
    policy.banned_V[list(policy.loaded.layout.eos_token_ids)] = True
    return policy


def roll_out_ours(case: Case, checkpoint: Path) -> Callable[[int], Counts]:
    """Our roll-outs: prompts read once, keys and values kept between turns."""
    from timeloupe.policy.base import GenerationRequest, Sampling

    policy = ours_policy(checkpoint)
    sampling = Sampling(temperature=1.0, max_new_tokens=case.new_tokens)

    def work(number: int) -> Counts:
        policy.memory.forget()  # every step of a training run does, since the weights changed
        group, prompt_tokens, new_tokens = Group(case, number), 0, 0
        for turn in range(TURNS):
            found = policy.generate(
                [
                    GenerationRequest(
                        tuple(group.messages[row]), tuple(group.clips[row]), tuple(group.generations[row]),
                        seed=100 * number + GROUP * turn + row, sampling=sampling,
                    )
                    for row in range(GROUP)
                ]
            )  # fmt: skip
            group.go_on(found)
            prompt_tokens += sum(one.usage.prompt_tokens for one in found)
            new_tokens += sum(len(one.token_ids) for one in found)
        return {"prompt_tokens": prompt_tokens, "new_tokens": new_tokens}

    return work


def roll_out_generate(case: Case, checkpoint: Path, *, fast_vision: bool) -> Callable[[int], Counts]:
    """The library's ``generate`` on the whole batch, which reads the whole prompt again in every turn."""
    import torch

    from timeloupe.model.expand import expand
    from timeloupe.model.load import load_model
    from timeloupe.model.render import render
    from timeloupe.policy.local import banned_tokens
    from timeloupe.trajectory import Generation

    loaded = load_model(checkpoint, device="cpu", fast_vision=fast_vision)
    layout = loaded.layout
    model: Any = loaded.model
    banned = banned_tokens(loaded)
    banned[list(layout.eos_token_ids)] = True
    settings = {
        "do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "pad_token_id": layout.pad_token_id,
        "min_new_tokens": case.new_tokens, "max_new_tokens": case.new_tokens,
        "suppress_tokens": banned.nonzero()[:, 0].tolist(),
    }  # fmt: skip

    def work(number: int) -> Counts:
        torch.manual_seed(number)
        group, prompt_tokens, new_tokens = Group(case, number), 0, 0
        for _ in range(TURNS):
            episodes = [
                render(messages, clips, loaded.chat, layout, generations=generations)
                for messages, clips, generations in zip(
                    group.messages, group.clips, group.generations, strict=True
                )
            ]
            batch = expand(episodes, layout, pad_side="left")
            kinds_BT = (batch.input_ids_BT == layout.video_token_id).to(torch.int64) * 2
            with torch.inference_mode():
                ids_BT = model.generate(
                    input_ids=batch.input_ids_BT, attention_mask=batch.attention_mask_BT,
                    pixel_values_videos=batch.pixel_values_videos, video_grid_thw=batch.video_grid_thw,
                    mm_token_type_ids=kinds_BT, **settings,
                )  # fmt: skip
            replies = ids_BT[:, batch.input_ids_BT.shape[1] :].tolist()
            texts = [loaded.tokenizer.decode(ids, skip_special_tokens=True) for ids in replies]
            group.go_on(
                [
                    Generation(text=text, finish="length", token_ids=tuple(ids))
                    for text, ids in zip(texts, replies, strict=True)
                ]
            )
            prompt_tokens += int(batch.attention_mask_BT.sum())
            new_tokens += sum(map(len, replies))
        return {"prompt_tokens": prompt_tokens, "new_tokens": new_tokens}

    return work


def step_ours(case: Case, checkpoint: Path) -> tuple[Callable[[int], Counts], Any]:
    """One step of ours: roll-outs, samples, log-probabilities, gradient, optimizer; and its model."""
    import torch

    from timeloupe.model.render import render
    from timeloupe.policy.base import GenerationRequest, Sampling
    from timeloupe.train import update
    from timeloupe.train.batch import Sample
    from timeloupe.train.grpo_recipe import GrpoRecipe
    from timeloupe.train.optimizer import build_optimizers
    from timeloupe.train.parallel import Parallel

    policy = ours_policy(checkpoint)
    loaded = policy.loaded
    loaded.model.base_model.visual.requires_grad_(False)
    recipe = GrpoRecipe.model_validate(
        {
            "model": {"checkpoint": str(checkpoint), "device": "cpu"}, "data": {"examples": ["none.jsonl"]},
            "steps": 1, "lr": 1e-6, "group": GROUP, "micro_batch": GROUP,
        }
    )  # fmt: skip
    optimizers = build_optimizers(loaded.model, "adamw", recipe.lr)
    sampling = Sampling(temperature=1.0, max_new_tokens=case.step_tokens)

    def work(number: int) -> Counts:
        messages, clips = picture_prompt(case, number)
        loaded.model.eval()
        found = policy.generate(
            [
                GenerationRequest(tuple(messages), tuple(clips), seed=GROUP * number + row, sampling=sampling)
                for row in range(GROUP)
            ]
        )
        samples = [
            Sample(
                render(
                    [*messages, message("assistant", one.text)], clips, loaded.chat, loaded.layout,
                    generations=[one], trained=True, ask_reply=False,
                ),
                advantage,
            )
            for one, advantage in zip(found, torch.linspace(-1, 1, GROUP).tolist(), strict=True)
        ]  # fmt: skip
        figures = update.update(samples, loaded, None, optimizers, recipe, Parallel())
        assert figures["norm"] > 0
        return {
            "prompt_tokens": sum(one.usage.prompt_tokens for one in found),
            "new_tokens": sum(len(one.token_ids) for one in found),
        }

    return work, loaded.model


def make(kind: str, case_name: str, work: Path) -> Callable[[int], Counts]:
    """Return the work of a worker."""
    case, checkpoint = CASES[case_name], checkpoint_of(case_name, work)
    if kind == "roll-outs, ours":
        return roll_out_ours(case, checkpoint)
    if kind == "step, ours":
        return step_ours(case, checkpoint)[0]
    return roll_out_generate(case, checkpoint, fast_vision=kind.endswith("our vision"))


def main() -> None:
    """Serve: KIND CASE WORK."""
    import torch

    torch.set_num_threads(1)
    if sys.argv[1] == "profile":
        from speed_profile import profile

        case = sys.argv[2]
        sys.stdin.readline()
        answer(profile(*step_ours(CASES[case], checkpoint_of(case, Path(sys.argv[3])))))
        return
    serve(make(sys.argv[1], sys.argv[2], Path(sys.argv[3])))


if __name__ == "__main__":
    main()
