"""`recbase plan`: what a training will need in memory, time and money, before it is paid for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recbase_hf.config import option, parse_arguments, part_of
from recbase_hf.files import write_json
from recbase_hf.language_model import MODEL_SIZES, qwen2_config
from recbase_hf.modeling.token_layout import TokenLayout
from recbase_hf.planning.memory import GIB, STRATEGIES
from recbase_hf.planning.plan import TOKENS_PER_PARAMETER, Plan, make_plan
from recbase_hf.planning.planned_run import PlannedRun

__all__ = ["PlanRun", "main", "plan"]


@dataclass(frozen=True)
class PlanRun(PlannedRun):
    """Plan a training: parameters, memory on each GPU by part, speed, hours and cost.

    The size may stand first (recbase plan 1.5b --gpus 8), or after --size, or after --config where no file has that
    name.
    """

    size: str = option("1.5b", help="size of the model", choices=tuple(MODEL_SIZES))
    num_levels: int = option(4, help="codes an item")
    codebook_size: int = option(1024, help="codes a level")
    gpus: int = option(1, help="GPUs in all")
    gpu_memory: float = option(80.0, help="GiB of each")
    strategy: str = option("ddp", help="how GPUs share the work: FSDP2, or a stage of DeepSpeed", choices=STRATEGIES)
    mixed_precision: str = option("bf16", help="as Accelerate has it", choices=("no", "bf16", "fp16"))
    gradient_checkpointing: bool = option(False, help="compute layers again in the backward pass: a third more work")
    attention: str = option("sdpa", help="as transformers names it", choices=("sdpa", "eager", "flash_attention_2"))
    loss_chunk: int = option(1024, help="tokens whose logits are in memory at once; 0 for all")
    batch_rows: int = option(64, help="rows a step, over all GPUs and micro-batches")
    row_length: int = option(1024, help="tokens a row")
    gradient_accumulation: int = option(1, help="micro-batches a step")
    ema_decay: float = option(0.0, help="of the moving average of the weights, which takes memory; 0 for none")
    patience: int = option(0, help="evaluations until an early stop, which keeps the best weights; 0 for none")
    reserve: float = option(2.0, help="GiB of each GPU for the CUDA context, NCCL and fragmentation")
    document_length: float | None = option(
        None, help="mean tokens of a packed history, which attend to each other; default the whole row, an upper bound"
    )
    tokens: float | None = option(None, help=f"budget of training tokens; default {TOKENS_PER_PARAMETER} a parameter")
    mfu: float = option(0.4, help="model FLOPs utilization that you expect, a share of the peak")
    peak_tflops: float = option(990.0, help="dense TFLOP/s of a GPU: 990 is an H100 or H200 in bf16, 312 an A100")
    gpu_hour_price: float = option(2.5, help="what an hour of one GPU costs")
    output: str | None = option(None, help="file.json for the numbers, besides printing them")


def plan(options: PlanRun) -> Plan:
    """The plan; it is also written where that is asked for."""
    layout = TokenLayout(options.num_levels, options.codebook_size)
    planned = make_plan(qwen2_config(options.size, layout), part_of(options, PlannedRun))
    if options.output is not None:
        write_json(options.output, planned.to_dict())
    return planned


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and print the plan."""
    arguments = _with_size(list(sys.argv[1:] if arguments is None else arguments))
    options = parse_arguments(PlanRun, arguments, program="recbase plan", description=PlanRun.__doc__ or "")
    print("\n".join(_lines(options, plan(options))))


def _with_size(arguments: list[str]) -> list[str]:
    """A size that stands first, or that is given as `--config`, as `--size`."""
    if arguments and not arguments[0].startswith("-"):
        arguments = ["--size", *arguments]
    for place, word in enumerate(arguments):
        flag, _, value = word.partition("=")
        if flag != "--config":
            continue
        following = arguments[place + 1 : place + 2]
        value = value or "".join(following)
        if value in MODEL_SIZES and not Path(value).is_file():
            arguments[place] = word.replace("--config", "--size", 1)
    return arguments


def _lines(options: PlanRun, planned: Plan) -> list[str]:
    rows = options.memory_setup().rows
    checkpointing = " and gradient checkpointing" if options.gradient_checkpointing else ""
    gpus = f"each of {options.gpus} GPUs" if options.gpus > 1 else "the GPU"
    width = max(map(len, planned.memory))
    lines = [
        f"{options.size}: {planned.parameters:,} parameters",
        "",
        f"Memory of {gpus} under {options.strategy}, mixed precision {options.mixed_precision}"
        f"{checkpointing}, {rows} rows of {options.row_length:,} tokens a micro-batch",
    ]
    parts = [*planned.memory.items(), ("total", planned.total_memory)]
    lines += [f"  {name:{width}} {_gib(size):>12}" for name, size in parts]
    without, with_checkpointing = planned.activations
    lines += [f"  (activations without gradient checkpointing {_gib(without)}, with it {_gib(with_checkpointing)})", ""]
    lines += _verdict(options, planned)
    peak = f"{options.peak_tflops:g} TFLOP/s"
    if options.mixed_precision == "no":
        peak += " of bf16, which float32 does not reach"
    lines += [
        "",
        f"Speed at {100 * options.mfu:g} % of {peak} (assumed: --mfu, --peak-tflops)",
        f"  {planned.flops_per_token / 1e9:.3g} GFLOP a token, recomputation not counted",
        f"  {planned.tokens_per_second:,.0f} tokens/s, {planned.seconds_per_step:.3g} s a step",
        "",
        f"Budget of {planned.tokens:.3g} tokens",
        f"  {planned.hours:,.1f} hours, {planned.hours * options.gpus:,.1f} GPU hours",
        f"  cost {planned.cost:,.0f} at {options.gpu_hour_price:g} a GPU hour (assumed: --gpu-hour-price)",
    ]
    return lines


def _verdict(options: PlanRun, planned: Plan) -> list[str]:
    memory = f"{options.gpu_memory:g} GiB (--gpu-memory)"
    if planned.fits:
        return [f"It fits into {memory}."]
    if not planned.remedies:
        return [f"It does not fit into {memory}, whatever the options and the number of GPUs."]
    lines = [f"It does NOT fit into {memory}. It would with{' one of' if len(planned.remedies) > 1 else ''}"]
    return lines + [f"  {flags}  ({_gib(size)})" for flags, size in planned.remedies.items()]


def _gib(size: int) -> str:
    return f"{size / GIB:,.2f} GiB"
