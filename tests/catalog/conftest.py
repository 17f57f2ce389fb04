"""Tokenizers of each collision policy, on one small quantizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from recbase_hf import RecBaseTokenizer
from tiny_world import HashEncoder, make_tokenizer


def make_policy_tokenizer(policy: str, **sizes: int) -> Any:
    plain = make_tokenizer(**sizes)
    tokenizer = RecBaseTokenizer(
        quantizer=plain.quantizer, text_encoder=HashEncoder.name, item_template=plain.item_template, collisions=policy
    )
    tokenizer.attached_text_encoder = HashEncoder()
    return tokenizer


@pytest.fixture(scope="session")
def tokenizer_of() -> Callable[..., Any]:
    """The tokenizer of a policy and sizes; the same one each time."""
    made: dict[Any, Any] = {}

    def get(policy: str = "keep", **sizes: int) -> Any:
        key = (policy, *sorted(sizes.items()))
        if key not in made:
            made[key] = make_policy_tokenizer(policy, **sizes)
        return made[key]

    return get
