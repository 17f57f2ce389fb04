"""`recbase plan`: what a training will need in memory, time and money, before it is paid for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from recbase_hf.commands.command import Answer, Command
from recbase_hf.config import option, require_positive
from recbase_hf.files import write_json
from recbase_hf.language_model import MODEL_SIZES, qwen2_config
from recbase_hf.modeling.token_layout import TokenLayout
from recbase_hf.planning.memory import GIB, STRATEGIES
from recbase_hf.planning.plan import TOKENS_PER_PARAMETER, Plan, make_plan
from recbase_hf.planning.planned_run import PlannedRun
from recbase_hf.shards.pack import Packing
from recbase_hf.shards.packing import default_row_length, require_fitting

__all__ = ["COMMAND", "PlanRun", "plan"]


@dataclass(frozen=True)
class PlanRun:
    """Plan a training: parameters, memory on each GPU by part, speed, hours and cost.

    The size stands first (recbase plan 1.5b --gpus 8), or after --size or --config. What is not said is as recbase
    pretrain has it. The exit status is 0 if the run fits into the memory, 1 if it does not, 2 on an error.
    """

    size: str = option(help="of the model: tiny, mini, base, base-paper or 1.5b", choices=tuple(MODEL_SIZES))
    num_levels: int = option(4, help="codes an item")
    codebook_size: int = option(1024, help="codes a level")
    max_items: int = option(Packing.max_items, help="items a training window")
    row_length: int | None = option(
        Packing.row_length, help="tokens a packed row; default two full windows, or as many as make 512 tokens"
    )
    gpus: int = option(PlannedRun.gpus, help="GPUs in all")
    gpu_memory: float = option(PlannedRun.gpu_memory, help="GiB of each")
    strategy: str = option(
        PlannedRun.strategy, help="how GPUs share the work: FSDP2, or a stage of DeepSpeed", choices=STRATEGIES
    )
    mixed_precision: str = option(
        PlannedRun.mixed_precision, help="as Accelerate has it", choices=("no", "bf16", "fp16")
    )
    gradient_checkpointing: bool = option(
        PlannedRun.gradient_checkpointing, help="compute layers again in the backward pass: a third more work"
    )
    attention: str = option(
        PlannedRun.attention, help="as transformers names it", choices=("sdpa", "eager", "flash_attention_2")
    )
    loss_chunk: int = option(PlannedRun.loss_chunk, help="tokens whose logits are in memory at once; 0 for all")
    batch_rows: int = option(PlannedRun.batch_rows, help="rows a step, over all GPUs and micro-batches")
    gradient_accumulation: int = option(PlannedRun.gradient_accumulation, help="micro-batches a step")
    ema_decay: float = option(
        PlannedRun.ema_decay, help="of the moving average of the weights, which takes memory; 0 for none"
    )
    patience: int = option(
        PlannedRun.patience, help="evaluations until an early stop, which keeps the best weights; 0 for none"
    )
    reserve: float = option(PlannedRun.reserve, help="GiB of each GPU for the CUDA context, NCCL and fragmentation")
    document_length: float | None = option(
        None, help="mean tokens of a window, which attend to each other; default a full window, an upper bound"
    )
    tokens: float | None = option(None, help=f"budget of training tokens; default {TOKENS_PER_PARAMETER} a parameter")
    mfu: float = option(PlannedRun.mfu, help="model FLOPs utilization that you expect, a share of the peak")
    peak_tflops: float = option(
        PlannedRun.peak_tflops, help="dense TFLOP/s of a GPU: 990 is an H100 or H200 in bf16, 312 an A100"
    )
    gpu_hour_price: float = option(PlannedRun.gpu_hour_price, help="what an hour of one GPU costs")
    output: str | None = option(None, help="file.json for the numbers, besides printing them")

    def __post_init__(self) -> None:
        require_positive(self, "num_levels", "codebook_size")
        Packing(row_length=self.row_length, max_items=self.max_items)
        self.planned_run()

    @property
    def layout(self) -> TokenLayout:
        """Of the tokenizer."""
        return TokenLayout(self.num_levels, self.codebook_size)

    def planned_run(self) -> PlannedRun:
        """What is planned, with rows of whole windows, where nothing else is asked for, as they are packed.

        Raises:
            ValueError: a number is out of its range, a window does not fit a row, or the rows cannot be shared out.
        """
        row_length = self.row_length or default_row_length(self.layout, self.max_items)
        require_fitting(self.layout, row_length=row_length, max_items=self.max_items)
        values = {field.name: getattr(self, field.name) for field in fields(PlannedRun)}
        if self.document_length is None:
            values["document_length"] = 1 + self.num_levels * self.max_items
        return PlannedRun(**{**values, "row_length": row_length})


def plan(options: PlanRun) -> Plan:
    """The plan; it is also written where that is asked for."""
    config = qwen2_config(options.size, options.layout, max_items=options.max_items)
    planned = make_plan(config, options.planned_run())
    if options.output is not None:
        write_json(options.output, _content(options, planned))
    return planned


def run(options: PlanRun) -> Answer:
    """Plan; the answer is no where the run does not fit."""
    planned = plan(options)
    return Answer("\n".join(_lines(options.size, planned)), _content(options, planned), is_yes=planned.fits)


def _content(options: PlanRun, planned: Plan) -> dict[str, Any]:
    return {"size": options.size, **planned.to_dict()}


class _PlanCommand(Command):
    """A size is a configuration too: `--config 1.5b` is `--size 1.5b`, unless it is the path of a file."""

    def __call__(self, arguments: Sequence[str]) -> None:
        """Parse, run and print."""
        joined = "\0".join(arguments)
        for size in MODEL_SIZES:
            joined = re.sub(rf"--config[=\0]{re.escape(size)}(?=\0|$)", f"--size={size}", joined)
        super().__call__(joined.split("\0") if joined else [])


# ---- the text --------------------------------------------------------------------------------------------------------


def _lines(size: str, planned: Plan) -> list[str]:
    run = planned.run
    rows = run.memory_setup().rows
    checkpointing = " and gradient checkpointing" if run.gradient_checkpointing else ""
    gpus = f"each of {run.gpus} GPUs under {run.strategy}" if run.gpus > 1 else f"the GPU under {run.strategy}"
    width = max(map(len, planned.memory))
    lines = [
        f"{size}: {planned.parameters:,} parameters",
        "",
        f"Memory of {gpus}, mixed precision {run.mixed_precision}{checkpointing}",
        f"A micro-batch is {rows} rows of {run.row_length:,} tokens, a step {run.batch_rows} rows on all GPUs",
    ]
    parts = [*planned.memory.items(), ("total", planned.total_memory)]
    lines += [f"  {name:{width}} {_gib(amount):>12}" for name, amount in parts]
    without, with_checkpointing = planned.activations
    lines += [f"  (activations without gradient checkpointing {_gib(without)}, with it {_gib(with_checkpointing)})", ""]
    return [*lines, *_verdict(planned), "", *_speed(planned)]


def _verdict(planned: Plan) -> list[str]:
    memory = f"{planned.run.gpu_memory:g} GiB (--gpu-memory)"
    if planned.fits:
        return [f"It fits into {memory}."]
    if not planned.remedies:
        return [f"It does NOT fit into {memory}, whatever the options and the number of GPUs."]
    lines = [f"It does NOT fit into {memory}. It would with{' one of' if len(planned.remedies) > 1 else ''}"]
    return lines + [f"  {flags}  ({_gib(size)})" for flags, size in planned.remedies.items()]


def _speed(planned: Plan) -> list[str]:
    run, speed = planned.run, planned.tokens_per_second
    peak = f"{run.peak_tflops:g} TFLOP/s a GPU"
    if run.mixed_precision == "no":
        peak += " (of bf16, which float32 does not reach)"
    return [
        f"Speed that follows from an assumed MFU of {100 * run.mfu:g} % of {peak}; --mfu, --peak-tflops",
        f"  {planned.flops_per_token / 1e9:.3g} GFLOP a token of windows of {run.document_length:g}, "
        "recomputation not counted",
        f"  {speed:,.0f} tokens/s, {planned.seconds_per_step:.3g} s a step at that MFU; not measured",
        "",
        f"Budget of {planned.tokens:.3g} tokens",
        f"  {planned.hours:,.1f} hours, {planned.hours * run.gpus:,.1f} GPU hours at that MFU; not measured",
        f"  cost {planned.cost:,.0f} at {run.gpu_hour_price:g} a GPU hour (assumed: --gpu-hour-price)",
    ]


def _gib(size: int) -> str:
    return f"{size / GIB:,.2f} GiB"


COMMAND = _PlanCommand("plan", PlanRun, run, positional=("size",))
