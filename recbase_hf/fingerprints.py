"""Refuses parts that do not belong together: codes mean something only under the quantizer that made them."""

from __future__ import annotations

from recbase_hf.errors import FingerprintMismatchError

__all__ = ["require_same_fingerprint"]


def require_same_fingerprint(**fingerprints: str | None) -> None:
    """Raise unless all parts (keyword: what the part is) carry the same fingerprint.

    Raises:
        FingerprintMismatchError: names the two parts that differ.

    >>> require_same_fingerprint(tokenizer="a1", catalog="a1")
    """
    (first, expected), *others = fingerprints.items()
    for name, fingerprint in others:
        if fingerprint != expected:
            raise FingerprintMismatchError(
                f"the {name} (fingerprint {fingerprint}) and the {first} (fingerprint {expected}) were made with "
                f"different tokenizers, so their semantic IDs mean different things; "
                f"make the {name} again with this {first}"
            )
