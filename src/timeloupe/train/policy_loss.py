"""The losses of reinforcement learning, as functions of log-probabilities. Pure: no model, no state.

Shapes: B roll-outs, T tokens. ``mask_BT`` is 1 on the sampled tokens that are learnt and 0 on prompt, frames, tool text
and padding; what stands at masked places of any tensor has no effect.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch

from timeloupe.errors import boundary

Importance = Literal["token", "sequence"]
"""What the ratio to the sampling policy is of.

Each token (GRPO), or all learnt tokens of a roll-out, of every turn, length-normalised (GSPO).
"""

Aggregate = Literal["token_mean", "sequence_mean", "sequence_sum"]
"""How token losses become one number.

- ``token_mean``: sum over all tokens of the batch / their number
- ``sequence_mean``: mean over a roll-out's learnt tokens, then over roll-outs (MUSEG, Open-o3, VideoTemp-o3)
- ``sequence_sum``: sum over a roll-out's learnt tokens, mean over roll-outs
"""


@dataclass(frozen=True)
class LossSettings:
    """What the policy loss is made of.

    Attributes:
        importance: See ``Importance``.
        aggregate: See ``Aggregate``.
        clip_low: The ratio is clipped at 1 - clip_low, in [0, 1].
        clip_high: And at 1 + clip_high, >= 0.
        dual_clip: Where the advantage is negative a token's loss is at most -A * dual_clip (Ye et al. 2020);
            ``None`` = unbounded, else > 1.
        kl_weight: Weight of the KL term to the reference, >= 0.
        kl_log_ratio_bound: The log ratio to the reference is clamped to +- this before ``exp``.
        kl_bound: The KL of a token is clamped to +- this; ``None`` = not.
    """

    importance: Importance = "token"
    aggregate: Aggregate = "sequence_mean"
    clip_low: float = 0.2
    clip_high: float = 0.2
    dual_clip: float | None = None
    kl_weight: float = 0.0
    kl_log_ratio_bound: float = 20.0
    kl_bound: float | None = None

    def __post_init__(self) -> None:
        for name, value, legal in (
            ("importance", self.importance, get_args(Importance)),
            ("aggregate", self.aggregate, get_args(Aggregate)),
        ):
            if value not in legal:
                raise boundary(f"{name} of the policy loss", value, legal)
        for name, value, fits, words in (
            ("clip_low", self.clip_low, 0 <= self.clip_low <= 1, "0..1"),
            ("clip_high", self.clip_high, self.clip_high >= 0, ">= 0"),
            ("dual_clip", self.dual_clip, self.dual_clip is None or self.dual_clip > 1, "> 1 or none"),
            ("kl_weight", self.kl_weight, self.kl_weight >= 0, ">= 0"),
        ):
            if not fits:
                raise boundary(f"{name} of the policy loss", value, words)


@dataclass(frozen=True, eq=False)
class PolicyLoss:
    """A loss and what was seen on the way.

    Attributes:
        total: Scalar with gradient: policy term plus weighted KL.
        kl: Mean KL to the reference over learnt tokens, nats; 0 without a reference.
        clip_share: Share of learnt tokens whose ratio was clipped, in [0, 1]; with ``sequence`` importance a reply's
            tokens are clipped together.
        ratio_mean: Mean ratio over learnt tokens.
        ratio_distance: Mean distance of the ratio from 1 over learnt tokens: how far the policy is from the one that
            sampled, on either side.

    Off-policy roll-outs have no ratio and are in none of the last three, which are 0 without any other.
    """

    total: torch.Tensor
    kl: float
    clip_share: float
    ratio_mean: float
    ratio_distance: float


def policy_loss(
    log_probs_BT: torch.Tensor,
    old_log_probs_BT: torch.Tensor | None,
    advantages_B: torch.Tensor,
    mask_BT: torch.Tensor,
    settings: LossSettings,
    *,
    reference_log_probs_BT: torch.Tensor | None = None,
    off_policy_B: torch.Tensor | None = None,
    weights_BT: torch.Tensor | None = None,
    num_tokens: int | None = None,
    num_sequences: int | None = None,
) -> PolicyLoss:
    """Return the clipped policy-gradient loss of roll-outs.

    For a sampled roll-out with ratio r = exp(log pi - log pi_old), a token's loss is
    ``max(-A r, -A clip(r, 1 - clip_low, 1 + clip_high))`` (PPO, Schulman et al. 2017; GRPO, Shao et al. 2024). With
    ``sequence`` importance r is exp of the mean log ratio over the roll-out's learnt tokens (GSPO, Zheng et al. 2025),
    and its gradient reaches all of them. For an off-policy roll-out it is ``-A log pi`` (TaRO's AW-BC: A >= 0 is a
    weight).

    Args:
        log_probs_BT: Of the taken tokens under the policy, with gradient.
        old_log_probs_BT: As recorded while sampling; ``None`` = the policy's own, detached, so that r is 1 (what the
            releases with one update per batch do).
        advantages_B: One per roll-out.
        mask_BT: 1 on learnt tokens.
        settings: See there.
        reference_log_probs_BT: Of the reference model; needed where ``kl_weight`` > 0.
        off_policy_B: True where the policy did not sample the roll-out itself.
        weights_BT: Factor of each token's policy term, without gradient; the KL term has none. Default: 1.
        num_tokens: Learnt tokens of the whole batch, where this is a part of it (gradient accumulation, several
            processes); the parts' losses then add up to the batch's. Default: of this part.
        num_sequences: Roll-outs of the whole batch, likewise.

    Raises:
        ConfigError: A KL weight without reference.
    """
    mask_BT = mask_BT.to(log_probs_BT.dtype)
    if settings.kl_weight and reference_log_probs_BT is None:
        raise boundary("kl_weight without a reference model", settings.kl_weight, "0, or give a reference")
    old_BT = log_probs_BT.detach() if old_log_probs_BT is None else old_log_probs_BT
    log_ratio_BT = _clean(log_probs_BT - old_BT, mask_BT)
    lengths_B = mask_BT.sum(1).clamp(min=1)
    if settings.importance == "sequence":
        log_ratio_BT = ((log_ratio_BT * mask_BT).sum(1) / lengths_B)[:, None].expand_as(log_probs_BT)
    ratio_BT = log_ratio_BT.clamp(-20, 20).exp()
    advantages_BT = advantages_B[:, None].to(log_probs_BT.dtype)
    plain_BT = -advantages_BT * ratio_BT
    clipped_BT = -advantages_BT * ratio_BT.clamp(1 - settings.clip_low, 1 + settings.clip_high)
    loss_BT = torch.maximum(plain_BT, clipped_BT)
    if settings.dual_clip is not None:
        bounded_BT = torch.minimum(loss_BT, -advantages_BT * settings.dual_clip)
        loss_BT = torch.where(advantages_BT < 0, bounded_BT, loss_BT)
    was_clipped_BT = (clipped_BT > plain_BT).to(mask_BT.dtype)
    own_BT = mask_BT
    if off_policy_B is not None:
        off_BT = off_policy_B[:, None].expand_as(loss_BT)
        loss_BT = torch.where(off_BT, -advantages_BT * _clean(log_probs_BT, mask_BT), loss_BT)
        own_BT = mask_BT * ~off_BT
    if weights_BT is not None:
        loss_BT = loss_BT * weights_BT
    kl = 0.0
    if reference_log_probs_BT is not None:
        kl_BT = k3(
            _clean(log_probs_BT, mask_BT),
            _clean(reference_log_probs_BT, mask_BT),
            log_ratio_bound=settings.kl_log_ratio_bound,
            bound=settings.kl_bound,
        )
        loss_BT = loss_BT + settings.kl_weight * kl_BT
        kl = _mean(kl_BT.detach(), mask_BT)
    total = aggregate(
        loss_BT, mask_BT, settings.aggregate, num_tokens=num_tokens, num_sequences=num_sequences
    )
    ratio_BT = ratio_BT.detach()
    return PolicyLoss(
        total,
        kl,
        _mean(was_clipped_BT, own_BT),
        _mean(ratio_BT, own_BT),
        _mean((ratio_BT - 1).abs(), own_BT),
    )


def k3(
    log_probs: torch.Tensor,
    reference: torch.Tensor,
    *,
    log_ratio_bound: float = 20.0,
    bound: float | None = None,
) -> torch.Tensor:
    """Return the k3 estimate of KL(policy || reference) per token, >= 0 nats: exp(d) - d - 1, d = log ref - log pi.

    (Schulman, "Approximating KL divergence", 2020.) Bounds: MUSEG has none, Open-o3 clamps d to +-10, TaRO (verl) d to
    +-20 and the value to +-10.
    """
    difference = (reference - log_probs).clamp(-log_ratio_bound, log_ratio_bound)
    value = difference.exp() - difference - 1
    return value if bound is None else value.clamp(-bound, bound)


def aggregate(
    loss_BT: torch.Tensor,
    mask_BT: torch.Tensor,
    how: Aggregate,
    *,
    num_tokens: int | None = None,
    num_sequences: int | None = None,
) -> torch.Tensor:
    """Return one number from token losses; see ``Aggregate``. A roll-out without a learnt token counts as 0."""
    masked_BT = _clean(loss_BT, mask_BT) * mask_BT
    if how == "token_mean":
        count = float(mask_BT.sum()) if num_tokens is None else num_tokens
        return masked_BT.sum() / max(count, 1)
    per_row_B = masked_BT.sum(1)
    if how == "sequence_mean":
        per_row_B = per_row_B / mask_BT.sum(1).clamp(min=1)
    return per_row_B.sum() / max(len(loss_BT) if num_sequences is None else num_sequences, 1)


def _clean(values_BT: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    """Zero at masked places: an infinity there times 0 would be no number, in the loss and in its gradient."""
    return torch.where(mask_BT > 0, values_BT, torch.zeros_like(values_BT))


def _mean(values_BT: torch.Tensor, mask_BT: torch.Tensor) -> float:
    return float((values_BT * mask_BT).sum() / mask_BT.sum().clamp(min=1))
