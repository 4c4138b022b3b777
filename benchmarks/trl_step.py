"""TRL's GRPOTrainer as a process of ``rollout_speed.py``: one training step for every line it is sent.

Runs in ``.venv-trl`` and imports nothing of the project but the sizes. The settings are those of our step: eight
completions of one prompt of pictures, no KL term, one update per batch, AdamW, the vision tower frozen, no gradient
checkpointing, float32; completions of a fixed length, and special tokens banned as ours are.

    .venv-trl/bin/python benchmarks/trl_step.py CASE CHECKPOINT
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

from speed_cases import CASES, GROUP, QUESTION, SYSTEM, Case, pixels

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"


def processor_of(checkpoint: Path) -> Any:
    """Return the library's processor of a checkpoint, which is told not to resize."""
    from transformers import AutoTokenizer, Qwen2VLImageProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    return Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor.from_pretrained(checkpoint, max_pixels=1 << 20),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor.from_pretrained(checkpoint),
        chat_template=tokenizer.chat_template,
    )


def reward(completions: list[Any], **_: Any) -> list[float]:
    """Return rewards that differ, so that every member of a group has a gradient."""
    words = [str(one).encode() for one in completions]
    return [
        index / len(words) + int(hashlib.sha256(word).hexdigest()[:2], 16) / 1000
        for index, word in enumerate(words)
    ]


def banned_ids(checkpoint: Path, tokenizer: Any, size: int) -> list[int]:
    """Return what must not be sampled: special tokens and the end of a turn, as in our process."""
    added = [index for index, token in tokenizer.added_tokens_decoder.items() if token.special]
    return sorted({*added, *range(len(tokenizer), size)})


def trainer_of(case: Case, checkpoint: Path, steps: int, callback: Any) -> Any:
    """Return the trainer."""
    import torch
    from datasets import Dataset
    from PIL import Image
    from transformers import Qwen3VLForConditionalGeneration
    from trl import GRPOConfig, GRPOTrainer

    processor = processor_of(checkpoint)
    model = Qwen3VLForConditionalGeneration.from_pretrained(
        checkpoint, dtype=torch.float32, attn_implementation="sdpa"
    )
    model.base_model.visual.requires_grad_(False)
    tokenizer: Any = processor.tokenizer  # type: ignore[attr-defined]
    size = model.get_output_embeddings().weight.shape[0]
    pictures = [Image.fromarray(frame) for frame in pixels(0, case.images, case.picture_size)]
    # TRL puts the pictures before the text of the user's message.
    prompt = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": f"\n{QUESTION}"}]
    rows = Dataset.from_dict({"prompt": [prompt] * steps, "images": [pictures] * steps})
    arguments = GRPOConfig(
        output_dir="/tmp/trl-step", use_cpu=True, bf16=False, report_to="none", save_strategy="no",
        logging_strategy="no", disable_tqdm=True, max_steps=steps, learning_rate=1e-6,
        per_device_train_batch_size=GROUP, num_generations=GROUP, gradient_accumulation_steps=1,
        max_completion_length=case.step_tokens, beta=0.0, loss_type="grpo", temperature=1.0,
        gradient_checkpointing=False, dataloader_num_workers=0,
        generation_kwargs={
            "min_new_tokens": case.step_tokens, "suppress_tokens": banned_ids(checkpoint, tokenizer, size),
        },
    )  # fmt: skip
    return GRPOTrainer(
        model=model, reward_funcs=reward, args=arguments, train_dataset=rows, processing_class=processor,
        callbacks=[callback],
    )  # fmt: skip


def main() -> None:
    """Serve: CASE CHECKPOINT."""
    import torch
    from transformers import TrainerCallback

    torch.set_num_threads(1)
    case = CASES[sys.argv[1]]

    class Turnstile(TrainerCallback):
        """Lets a step through for every line, and says what it cost."""

        began = 0.0

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.wait()

        def on_step_end(self, _: Any, __: Any, control: Any, **___: Any) -> Any:
            found = {
                "cpu": time.process_time() - self.began,
                "prompt_tokens": seen["prompt"],
                "new_tokens": seen["new"],
            }
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(json.dumps({**found, "peak_mib": peak}), flush=True)
            self.wait()
            return control

        def wait(self) -> None:
            if not sys.stdin.readline():
                os._exit(0)
            self.began = time.process_time()

    seen: dict[str, int] = {}
    trainer = trainer_of(case, Path(sys.argv[2]), 100, Turnstile())
    inner = trainer._generate_and_score_completions

    def counted(inputs: Any) -> Any:
        found = inner(inputs)
        seen["prompt"] = int(found["prompt_mask"].sum())
        seen["new"] = int(found["completion_mask"].sum())
        return found

    trainer._generate_and_score_completions = counted
    trainer.train()


if __name__ == "__main__":
    main()
