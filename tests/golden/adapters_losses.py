"""Our advantages and losses for the vectors of MUSEG, Open-o3 and TaRO."""

from __future__ import annotations

from typing import Any

import torch

from tests.golden.replay import Adapter
from timeloupe.train.advantage import group_advantages, off_policy_weights
from timeloupe.train.policy_loss import LossSettings, k3, policy_loss

TARO_MODES: dict[str, Any] = {"mask": "mask", "AWR": "awr", "clone": "clone", "RAFT": "raft"}
TARO_AGGREGATES: dict[str, Any] = {
    "token-mean": "token_mean",
    "seq-mean-token-mean": "sequence_mean",
    "seq-mean-token-sum": "sequence_sum",
}


def by_prompt(inputs: dict[str, Any]) -> list[float]:
    """Advantages of consecutive groups."""
    size = inputs["num_generations"]
    groups = [place // size for place in range(len(inputs["rewards"]))]
    return group_advantages(inputs["rewards"], groups).tolist()


def grpo(inputs: dict[str, Any]) -> dict[str, Any]:
    """Loss and gradient of MUSEG and Open-o3, whose ratio is 1."""
    low, high = inputs.get("epsilon", (0.2, 0.2))
    settings = LossSettings(
        importance="sequence" if inputs.get("gspo") else "token",
        clip_low=low,
        clip_high=high,
        kl_weight=inputs["beta"],
        kl_log_ratio_bound=10.0 if "epsilon" in inputs else 20.0,
    )
    log_probs = torch.tensor(inputs["per_token_logps"], requires_grad=True)
    found = policy_loss(
        log_probs,
        None,
        torch.tensor(inputs["advantages"]),
        torch.tensor(inputs["completion_mask"]),
        settings,
        reference_log_probs_BT=torch.tensor(inputs["ref_per_token_logps"]),
    )
    found.total.backward()
    assert log_probs.grad is not None
    return {"loss": found.total.item(), "grad": log_probs.grad.tolist()}


def taro_advantage(inputs: dict[str, Any]) -> list[float]:
    """Advantages with off-policy weights; a group of one keeps its reward."""
    scores, groups = inputs["scores"], inputs["group"]
    scale = "std" if inputs["norm_by_std"] else "mean"
    advantages = group_advantages(scores, groups, scale=scale, epsilon=1e-6, single="reward")
    if inputs["off_policy"] is None:
        return advantages.tolist()
    off_policy = [bool(one) for one in inputs["off_policy"]]
    mode = TARO_MODES[inputs["off_policy_mode"]]
    return off_policy_weights(advantages, scores, groups, off_policy, mode=mode).tolist()


def taro_loss(inputs: dict[str, Any]) -> dict[str, Any]:
    """PPO on sampled rows, AW-BC on constructed ones."""
    low, high, dual = inputs["clip"]
    aggregate = TARO_AGGREGATES[inputs["loss_agg_mode"]]
    settings = LossSettings(aggregate=aggregate, clip_low=low, clip_high=high, dual_clip=dual)
    log_probs = torch.tensor(inputs["log_prob"], requires_grad=True)
    old, off_policy = inputs["old_log_prob"], inputs["off_policy"]
    constructed = off_policy is not None and not inputs["enforce_on_policy"]
    found = policy_loss(
        log_probs,
        None if old is None else torch.tensor(old),
        torch.tensor(inputs["advantages"]),
        torch.tensor(inputs["response_mask"]),
        settings,
        off_policy_B=torch.tensor(off_policy) > 0 if constructed else None,
    )
    found.total.backward()
    assert log_probs.grad is not None
    return {"loss": found.total.item(), "grad_log_prob": log_probs.grad.tolist()}


def taro_kl(inputs: dict[str, Any]) -> list[list[float]]:
    """KL per token with verl's bounds."""
    log_probs, reference = torch.tensor(inputs["log_prob"]), torch.tensor(inputs["ref_log_prob"])
    return k3(log_probs, reference, bound=10.0).tolist()


ADAPTERS: dict[tuple[str, str], Adapter] = {
    ("THUNLP-MT/MUSEG", "group_advantage"): by_prompt,
    ("THUNLP-MT/MUSEG", "grpo_loss"): grpo,
    ("marinero4972/Open-o3-Video", "group_advantage"): by_prompt,
    ("marinero4972/Open-o3-Video", "grpo_loss"): grpo,
    ("marinero4972/Open-o3-Video", "gspo_loss"): grpo,
    ("oceanflowlab/TaRO", "grpo_advantage_offpolicy"): taro_advantage,
    ("oceanflowlab/TaRO", "policy_loss_offpolicy"): taro_loss,
    ("oceanflowlab/TaRO", "kl_low_var"): taro_kl,
}
