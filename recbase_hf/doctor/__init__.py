"""The tokenizer doctor: is a tokenizer fit for these item tables, and if not, what is to be done."""

from __future__ import annotations

from recbase_hf.doctor.diagnosis import (
    Diagnosis,
    Finding,
    ItemTable,
    Thresholds,
    diagnose,
    diagnose_catalogs,
    diagnose_items,
)

__all__ = ["Diagnosis", "Finding", "ItemTable", "Thresholds", "diagnose", "diagnose_catalogs", "diagnose_items"]
