"""One update of the policy: from the samples of a batch to one optimizer step.

Gradients of micro batches and of processes add up to those of the batch, since denominators are of the whole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from timeloupe.errors import TimeloupeError
from timeloupe.model.load import LoadedModel
from timeloupe.model.packing import pack
from timeloupe.train.batch import Sample, micro_batches
from timeloupe.train.grpo_recipe import GrpoRecipe
from timeloupe.train.logprobs import Reference, log_probs
from timeloupe.train.old_log_probs import OldLogProbs
from timeloupe.train.parallel import Parallel
from timeloupe.train.policy_loss import LossSettings, policy_loss
from timeloupe.train.sharding import filler, whole

_OF_RATIOS = ("clip_share", "ratio", "ratio_distance")


def update(
    samples: Sequence[Sample],
    loaded: LoadedModel,
    reference: Reference | None,
    optimizers: Sequence[torch.optim.Optimizer],
    recipe: GrpoRecipe,
    parallel: Parallel,
    old: OldLogProbs | None = None,
) -> dict[str, float]:
    """Take one optimizer step on a batch and return its figures; without anything to learn the weights stay.

    ``samples`` are this process's; ``old`` is shared by all passes over them. Gradients of micro batches and processes
    add up to those of the batch: denominators are of the whole.

    Raises:
        TimeloupeError: The gradient is no number; the weights stay.
    """
    settings = LossSettings(**recipe.loss.model_dump())
    old = old or OldLogProbs(recipe.rollout)
    # A group whose members did equally well pulls nowhere; with a KL term it still pulls to the reference.
    useful = [one for one in samples if settings.kl_weight or one.advantage]
    counts = [
        sum(one.num_tokens for one in samples), len(samples), sum(one.num_tokens for one in useful),
        sum(one.num_tokens for one in useful if not one.off_policy),
    ]  # fmt: skip
    num_tokens, num_sequences, num_useful, num_own = (int(count) for count in parallel.sum(counts))
    if not num_useful:
        return {}
    loaded.model.train()
    names = ("loss", "kl", *_OF_RATIOS, "entropy")
    sums = [0.0] * len(names)
    for part in parallel.even(micro_batches(useful, recipe.micro_batch)):
        if part is None:
            _keep_step(loaded, reference)
            continue
        packed = pack([one.episode for one in part], loaded.layout).to(loaded.device)
        batch = packed.episodes
        log_probs_BT, entropy_BT = log_probs(loaded.model, packed)
        reference_BT = None if reference is None else reference(packed)
        old_BT, weights_BT = old(part, log_probs_BT, batch)
        found = policy_loss(
            log_probs_BT, old_BT,
            torch.tensor([one.advantage for one in part], device=loaded.device, dtype=torch.float32),
            batch.loss_mask_BT, settings, reference_log_probs_BT=reference_BT,
            off_policy_B=torch.tensor([one.off_policy for one in part], device=loaded.device),
            weights_BT=weights_BT, num_tokens=num_tokens, num_sequences=num_sequences,
        )  # fmt: skip
        found.total.backward()
        share = float(batch.loss_mask_BT.sum()) / num_useful
        own = sum(one.num_tokens for one in part if not one.off_policy) / max(num_own, 1)
        values = (
            found.total.item(), share * found.kl, own * found.clip_share, own * found.ratio_mean,
            own * found.ratio_distance, float(entropy_BT.sum()) / num_useful,
        )  # fmt: skip
        sums = [total + value for total, value in zip(sums, values, strict=True)]
    parallel.sum_gradients(loaded.model)
    norm = whole(torch.nn.utils.clip_grad_norm_(loaded.model.parameters(), recipe.clip_norm)).item()
    if not math.isfinite(norm):
        # One such step makes every weight no number, and all roll-outs after it are worth nothing.
        raise TimeloupeError(
            f"the gradient of an update is no number, got a norm of {norm} (loss {sums[0]}); the update was not made: "
            "begin a new run with a lower lr, or resume this one if the machine was at fault"
        )
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    figures = dict(zip(names, parallel.sum(sums), strict=True)) | {"norm": norm}
    # Roll-outs that the policy did not sample have no ratio: without any other there is nothing to tell. Nor was a KL
    # measured without a reference: a 0 would say that the policy stayed where it was.
    unmeasured = {*(() if num_own else _OF_RATIOS), *(() if reference is not None else ("kl",))}
    return {name: value for name, value in figures.items() if name not in unmeasured}


def _keep_step(loaded: LoadedModel, reference: Reference | None) -> None:
    """Take part in a pass of a sharded model without learning: other processes have more micro batches."""
    packed = pack([filler(loaded.layout)], loaded.layout).to(loaded.device)
    nothing = log_probs(loaded.model, packed)[0].sum() * 0.0
    if reference is not None:  # in the order of the others: what processes exchange has no names
        reference(packed)
    nothing.backward()
