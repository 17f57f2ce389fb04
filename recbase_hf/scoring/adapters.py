"""Several adapters over one base, of which at most one is active."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recbase_hf.adapters import base_of_adapter, load_over, require_base, require_peft

__all__ = ["ServedAdapters"]

logger = logging.getLogger(__name__)


class ServedAdapters:
    """The adapters of a scorer. They lie in the model's own layers, which are the base while none is active.

    Args:
        model: a `Qwen2ForCausalLM`, that is changed in place.
        fingerprint: of its tokenizer.
        name: of the base, for messages.
        weights: gives the hash of its files, None where nobody knows which these are.

    Attributes:
        active: the name of the active adapter, or None.
    """

    def __init__(self, model: Any, fingerprint: str, *, name: str, weights: Callable[[], str | None]) -> None:
        self._model, self._fingerprint, self._name, self._weights = model, fingerprint, name, weights
        self._wrapped: Any = None
        self._hash: str | None = None
        # To PEFT they are numbers: it takes parts of some names for words of its own.
        self._number_of: dict[str, str] = {}
        self.active: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Of all that are loaded."""
        return tuple(self._number_of)

    def load(self, name_or_path: str | Path, name: str, **hub: Any) -> None:
        """Load another one, which is not active before `activate`.

        Raises:
            FileNotFoundError: there is no such adapter.
            FingerprintMismatchError: it was trained over other weights, or for another tokenizer.
            ImportError: peft is missing.
            ValueError: the name is taken, or a file is damaged or does not fit; all is as it was.
        """
        require_peft()
        if name in self._number_of:
            raise ValueError(f"an adapter {name!r} is loaded already; choose another name")
        _, base = base_of_adapter(name_or_path, **hub)
        if base is None:
            logger.warning(
                "%s does not record its base; whether it was trained over this one is not known", name_or_path
            )
        elif self._hash is None:
            self._hash = self._weights()
        require_base(name_or_path, base, fingerprint=self._fingerprint, weights=self._hash, name=self._name)
        attention, was_training = self._model.config._attn_implementation, self._model.training
        number = f"served{len(self._number_of)}"
        try:
            self._wrapped = load_over(self._wrapped or self._model, name_or_path, number, **hub)
            self._number_of[name] = number
        finally:
            self._model.train(was_training)
            self._model.set_attn_implementation(attention)
            self.activate(self.active)

    def activate(self, name: str | None) -> None:
        """Let one of them count, or none.

        Raises:
            ValueError: there is none of that name.
        """
        if name is not None and name not in self._number_of:
            there = f"there are {', '.join(self.names)}" if self.names else "none is loaded"
            raise ValueError(f"no adapter {name!r}: {there}; load it first with load_adapter")
        if self._wrapped is not None and name is None:
            self._wrapped.base_model.disable_adapter_layers()
        elif self._wrapped is not None and name is not None:
            self._wrapped.base_model.enable_adapter_layers()
            self._wrapped.set_adapter(self._number_of[name], inference_mode=True)
        self.active = name
