"""What the ratio of an update is taken to, and how far the sampler was from the trainer.

An engine that samples (vLLM) computes the same model with other kernels, at bfloat16 on a GPU with visible differences:
roll-outs are then slightly off policy, and a ratio to the engine's log-probabilities is not 1 where nothing has been
learnt yet. Two known answers, both switched by ``rollout`` in the recipe: take the ratio to the trainer's own
log-probabilities (verl recomputes its ``old_log_prob`` so), and weigh each token by the truncated ratio between trainer
and engine (truncated importance sampling: Yao, Liu et al. 2025, "Your efficient RL framework secretly brings you
off-policy RL training"; an option of verl, TRL and others, commonly with cap 2).

Shapes: B roll-outs, T tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from timeloupe.errors import TimeloupeError
from timeloupe.model.expand import ModelBatch
from timeloupe.train.batch import Sample
from timeloupe.train.parallel import Parallel
from timeloupe.train.rollout_part import RolloutPart


class OldLogProbs:
    """Old log-probabilities and weights of one batch of roll-outs, over all its passes.

    Args:
        part: ``old`` and ``importance_cap`` are read.
    """

    def __init__(self, part: RolloutPart) -> None:
        self.part = part
        self._kept: dict[tuple[int, ...], torch.Tensor] = {}
        self._total = self._largest = self._capped = 0.0
        self._num_tokens = 0

    def __call__(
        self, samples: Sequence[Sample], log_probs_BT: torch.Tensor, batch: ModelBatch
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Return the old log-probabilities (B, T) of a micro batch, and the weights (B, T) of its tokens or ``None``.

        The first call for some samples has to be before the first optimizer step: it is when trainer and sampler have
        the same weights.

        Args:
            samples: The micro batch, the same in every pass.
            log_probs_BT: Under the trainer as it is now.
            batch: With what was recorded while sampling. ``None`` there means that it is not known of all: only
                ``old = "trainer"`` without a cap can do without, and roll-outs that the policy did not sample.

        Raises:
            TimeloupeError: It is not known and needed, or it and the trainer's differ by what is no number.
        """
        key = tuple(id(sample) for sample in samples)
        sampled_BT = batch.logprobs_BT
        first = key not in self._kept
        if first:
            self._kept[key] = log_probs_BT.detach()
        kept_BT = self._kept[key]
        if sampled_BT is None:
            self._refuse_unknown(samples)
            return (None if self.part.old == "sampled" else kept_BT), None
        off_B = torch.tensor([sample.off_policy for sample in samples], device=kept_BT.device)
        counted_BT = batch.loss_mask_BT & ~off_B[:, None]
        log_ratio_BT = torch.where(counted_BT, kept_BT - sampled_BT, 0.0)
        cap = self.part.importance_cap
        if first:
            gap_BT = log_ratio_BT.abs()
            largest = float(gap_BT.max())  # not a number if any is
            if not math.isfinite(largest):
                raise TimeloupeError(
                    f"log-probabilities of trainer and sampler differ by {largest} nats, which is no number; the update"
                    " was not made: begin a new run with a lower lr, or resume this one if the machine was at fault"
                )
            self._largest = max(self._largest, largest)
            self._total += float(gap_BT.sum())
            self._num_tokens += int(counted_BT.sum())
            if cap is not None:
                self._capped += int((log_ratio_BT.clamp(max=20).exp() > cap).sum())
        if self.part.old == "sampled":
            return sampled_BT, None
        return kept_BT, None if cap is None else log_ratio_BT.clamp(max=20).exp().clamp(max=cap)

    def _refuse_unknown(self, samples: Sequence[Sample]) -> None:
        """A ratio or a weight of 1 in place of one that is not known would teach something else."""
        part = self.part
        needed = part.old == "sampled" or part.importance_cap is not None
        if needed and not all(sample.off_policy for sample in samples):
            asks = "rollout.old = 'sampled'" if part.old == "sampled" else "rollout.importance_cap"
            raise TimeloupeError(
                f"a roll-out came without log-probabilities of its tokens, got None, but {asks} needs them; play with "
                "a policy that records them, or set rollout.old = 'trainer' without a cap"
            )

    def figures(self, parallel: Parallel) -> dict[str, float]:
        """Return what was seen in first passes, in all processes together; empty if nothing could be compared.

        ``gap_max`` and ``gap_mean`` are of |log p_trainer - log p_sampled| per learnt token, nats; ``capped`` is the
        share of tokens whose weight was cut.
        """
        total, count, capped = parallel.sum([self._total, self._num_tokens, self._capped])
        largest = max(parallel.gather([self._largest]))
        if not count:
            return {}
        found = {"gap_max": largest, "gap_mean": total / count}
        return found if self.part.importance_cap is None else found | {"capped": capped / count}
