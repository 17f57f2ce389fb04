"""Errors that callers may want to catch by kind. Each message names the thing, the place and the fix."""

from __future__ import annotations

__all__ = [
    "DataError",
    "FingerprintMismatchError",
    "LaunchError",
    "LeakageError",
    "PublishingError",
    "UnknownItemError",
]


class DataError(ValueError):
    """A user's table or vectors cannot be used; the message names file, column and row."""


class LeakageError(ValueError):
    """What is to be predicted was there to learn from."""


class LaunchError(RuntimeError):
    """The launcher started other processes than it was asked for."""


class PublishingError(ValueError):
    """A folder may not leave as it is, or not into that repository; the message names all that is in the way."""


class UnknownItemError(LookupError):
    """An item id is not in the catalog."""


class FingerprintMismatchError(ValueError):
    """Two parts (tokenizer, catalog, language model) were made with different quantizers."""
