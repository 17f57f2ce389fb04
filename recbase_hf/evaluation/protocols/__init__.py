"""Evaluation protocols: each one a function from interactions or histories to a task."""

from __future__ import annotations

from recbase_hf.evaluation.protocols.leave_last_out import leave_last_out
from recbase_hf.evaluation.protocols.leave_one_out import leave_one_out
from recbase_hf.evaluation.protocols.recbench import RECBENCH, RecBenchRules, recbench, recbench_rules, rules_by_columns
from recbase_hf.evaluation.protocols.recgpt import recgpt

__all__ = [
    "RECBENCH",
    "RecBenchRules",
    "leave_last_out",
    "leave_one_out",
    "recbench",
    "recbench_rules",
    "recgpt",
    "rules_by_columns",
]
