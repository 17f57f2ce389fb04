"""What can be measured on semantic IDs: plain functions over arrays, which know of no table and pass no verdict.

Codes are zero-based, (items, levels) integer; texts are a sequence of strings, one an item. Rows count from 0.
"""

from __future__ import annotations

from recbase_hf.catalog.measures import drift, reconstruction_cosines
from recbase_hf.doctor.collision_measures import (
    BucketSizes,
    Collisions,
    TextCollisions,
    bucket_sizes,
    collisions,
    largest_buckets,
    last_level_counts,
    text_collisions,
)
from recbase_hf.doctor.domain_measures import LevelOneInformation, level_one_information, level_one_overlap
from recbase_hf.doctor.groups import RowGroup
from recbase_hf.doctor.level_measures import (
    FIRST_CODES,
    LevelUse,
    code_counts,
    conditional_bits,
    distinct_items,
    entropy_bits,
    level_use,
)
from recbase_hf.doctor.neighbors import neighbor_recall
from recbase_hf.doctor.text_measures import DuplicateTexts, duplicate_texts, empty_texts, largest_text_groups
from recbase_hf.doctor.vector_measures import repeated_vectors

__all__ = [
    "FIRST_CODES",
    "BucketSizes",
    "Collisions",
    "DuplicateTexts",
    "LevelOneInformation",
    "LevelUse",
    "RowGroup",
    "TextCollisions",
    "bucket_sizes",
    "code_counts",
    "collisions",
    "conditional_bits",
    "distinct_items",
    "drift",
    "duplicate_texts",
    "empty_texts",
    "entropy_bits",
    "largest_buckets",
    "largest_text_groups",
    "last_level_counts",
    "level_one_information",
    "level_one_overlap",
    "level_use",
    "neighbor_recall",
    "reconstruction_cosines",
    "repeated_vectors",
    "text_collisions",
]
