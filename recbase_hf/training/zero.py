"""DeepSpeed's ZeRO: what it has to be told, and whole weights and moments out of the parts that it leaves a process.

ZeRO keeps float32 weights and moments as flat parts, beside a model in the precision that it computes in: whole in
stages 1 and 2, in parts too in stage 3. What is saved are the float32 ones, under the names of the parameters, so that
a checkpoint does not tell how it was trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from recbase_hf.errors import LaunchError
from recbase_hf.progress import is_main_process
from recbase_hf.training.optimizer import is_decayed

__all__ = [
    "flat_parts",
    "is_zero",
    "know_parts",
    "load_moments",
    "load_weights",
    "tell_deepspeed",
    "update_model",
    "whole_moments",
    "whole_weights",
]

_MOMENTS = ("exp_avg", "exp_avg_sq")


def tell_deepspeed(plugin: Any, *, micro_batch_rows: int, gradient_accumulation: int, clip_norm: float) -> None:
    """Write into Accelerate's DeepSpeed plugin what a training has settled; call before `prepare`.

    Raises:
        LaunchError: the launch asks for something whose state would not be saved.
    """
    config = plugin.deepspeed_config
    zero = config["zero_optimization"]
    if zero["stage"] not in (1, 2, 3):
        raise LaunchError(
            f"DeepSpeed with zero_stage {zero['stage']}: set it to 1, 2 or 3, or launch without DeepSpeed"
        )
    for what in ("offload_optimizer", "offload_param"):
        if ((zero.get(what) or {}).get("device") or "none") != "none":
            raise LaunchError(
                f"DeepSpeed with {what}: what is not on the accelerator would not be saved. Set {what}_device to none; "
                "zero_stage 3 and gradient_checkpointing save memory too"
            )
    if config.get("fp16", {}).get("enabled") is True:
        raise LaunchError("DeepSpeed with fp16: its loss scale would not be saved; set mixed_precision to bf16")
    config["train_micro_batch_size_per_gpu"] = micro_batch_rows
    config["gradient_accumulation_steps"] = gradient_accumulation
    config["gradient_clipping"] = clip_norm
    if config.get("bf16", {}).get("enabled"):
        # Else a gradient that is no number is clipped to one that looks sound.
        config["bf16"]["check_grad_overflow"] = True


def know_parts(model: torch.nn.Module, optimizer: Any) -> None:
    """Let the functions below find the parts of a model: those of DeepSpeed's optimizer, after `prepare`."""
    model.zero_optimizer = optimizer


def is_zero(model: torch.nn.Module) -> bool:
    """Whether ZeRO has parts of a model's weights."""
    return _zero_of(model) is not None


def flat_parts(model: torch.nn.Module) -> list[Tensor]:
    """The float32 weights that this process has, one flat tensor for each group of parameters."""
    zero = _zero_of(model)
    return zero.fp32_partitioned_groups_flat if _is_stage_3(zero) else zero.single_partition_of_fp32_groups


@torch.no_grad()
def update_model(model: torch.nn.Module) -> None:
    """Let the model compute with the float32 weights after they were changed. Call on every process."""
    from deepspeed.runtime.zero import GatheredParameters
    from deepspeed.utils import safe_get_full_fp32_param

    for parameter in model.parameters():
        weights = safe_get_full_fp32_param(parameter)
        with GatheredParameters([parameter], modifier_rank=0, enabled=_is_cut_up(parameter)):
            parameter.copy_(weights)


def whole_weights(model: torch.nn.Module) -> dict[str, Tensor]:
    """The model's state in float32 on the CPU of the main process, elsewhere nothing. Call on every process."""
    from deepspeed.utils import safe_get_full_fp32_param

    found = {id(parameter): _on_main(safe_get_full_fp32_param(parameter)) for parameter in model.parameters()}
    # Tied weights have two names here, as in every checkpoint.
    return {name: found[id(value)] for name, value in model.state_dict(keep_vars=True).items() if is_main_process()}


def whole_moments(model: torch.nn.Module) -> dict[str, Any]:
    """The state of the optimizer as it is without ZeRO, as `whole_weights` and after at least one step."""
    from deepspeed.utils import safe_get_full_optimizer_state

    optimizer, named = _zero_of(model).optimizer, list(model.named_parameters())
    _link_moments(_zero_of(model))
    step = _on_main(optimizer.state[flat_parts(model)[0]]["step"])
    state = {
        name: {moment: _on_main(safe_get_full_optimizer_state(parameter, moment)) for moment in _MOMENTS}
        for name, parameter in named
    }
    names = [[name for name, parameter in named if is_decayed(parameter) is wanted] for wanted in (True, False)]
    groups = [{**group, "params": of_group} for group, of_group in zip(optimizer.param_groups, names, strict=True)]
    return {
        "state": {name: {"step": step.clone(), **moments} for name, moments in state.items()},
        "param_groups": groups,
    }


@torch.no_grad()
def load_weights(model: torch.nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Take what `whole_weights` gave; `update_model` has to follow. Call on every process."""
    from deepspeed.utils import safe_set_full_fp32_param, safe_set_local_fp32_param

    for name, parameter in model.named_parameters():
        if _is_cut_up(parameter):
            safe_set_local_fp32_param(parameter, _part_of(weights[name], parameter))
        else:
            safe_set_full_fp32_param(parameter, weights[name])


@torch.no_grad()
def load_moments(model: torch.nn.Module, moments: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Take the `state` of what `whole_moments` gave. Call on every process."""
    from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

    zero = _zero_of(model)
    for flat in flat_parts(model):
        step = next(iter(moments.values()))["step"].clone().to(flat.device)
        zero.optimizer.state[flat] = {"step": step, **{moment: torch.zeros_like(flat) for moment in _MOMENTS}}
    _link_moments(zero)
    for name, parameter in model.named_parameters():
        for moment in _MOMENTS:
            value = moments[name][moment]
            if _is_cut_up(parameter):
                safe_set_local_optimizer_state(parameter, _part_of(value, parameter), moment)
            else:
                safe_set_full_optimizer_state(parameter, value, moment)


def _zero_of(model: torch.nn.Module) -> Any:
    """What `know_parts` was given, or None."""
    return getattr(model, "zero_optimizer", None)


def _is_stage_3(zero: Any) -> bool:
    return hasattr(zero, "fp32_partitioned_groups_flat")


def _link_moments(zero: Any) -> None:
    """Let DeepSpeed's functions see the moments: stages 1 and 2 do so at the first step, for the first group alone."""
    from deepspeed.utils.mixed_precision_linkage import lazy_init_hp_params_optimizer_state

    if not _is_stage_3(zero):
        for parameters, flat in zip(zero.bit16_groups, zero.single_partition_of_fp32_groups, strict=True):
            lazy_init_hp_params_optimizer_state(parameters, flat, zero.optimizer.state)


def _is_cut_up(parameter: Tensor) -> bool:
    """Whether this process has only a part of the parameter itself (stage 3)."""
    return hasattr(parameter, "ds_id")


def _part_of(whole: Tensor, parameter: Any) -> Tensor:
    """This process's part of a whole tensor, padded as ZeRO 3 pads it."""
    length, rank = parameter.ds_tensor.numel(), torch.distributed.get_rank()
    part = whole.flatten()[rank * length : (rank + 1) * length].to(parameter.ds_tensor.device)
    return torch.nn.functional.pad(part, (0, length - len(part)))


def _on_main(value: Tensor) -> Tensor:
    """On the CPU of the main process; on the others nothing, so that not all of them fill their memory."""
    return value.cpu().clone() if is_main_process() else value.new_empty(0)
