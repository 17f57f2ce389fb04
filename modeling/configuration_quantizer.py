"""What the configurations of all quantizers share."""

from __future__ import annotations

import inspect
from typing import Any

from transformers import PretrainedConfig

__all__ = ["QuantizerConfig"]


class QuantizerConfig(PretrainedConfig):
    """Shape of a quantizer; each kind adds its own.

    Args:
        input_dim: width of the item vectors (384 for all-MiniLM-L6-v2, 4096 for NV-Embed-v2).
        num_levels: codes in a semantic ID, 1 to 26 (their tokens are named by letters).
        codebook_size: codes a level.
        mean_shrinkage: how many items the corpus mean weighs when a catalog's own mean is estimated.

    Raises:
        ValueError: a size is not positive, or there are more than 26 levels.
    """

    model_type = "recbase_quantizer"

    def __init__(
        self,
        input_dim: int = 384,
        num_levels: int = 4,
        codebook_size: int = 1024,
        mean_shrinkage: float = 32.0,
        **kwargs: Any,
    ) -> None:
        self.input_dim = input_dim
        self.num_levels = num_levels
        self.codebook_size = codebook_size
        self.mean_shrinkage = mean_shrinkage
        super().__init__(**kwargs)
        self.require_positive("input_dim", "num_levels", "codebook_size")
        if num_levels > 26:
            raise ValueError(
                f"{type(self).__name__}: num_levels is {num_levels}; tokens are named by letters, so at most 26"
            )

    def require_positive(self, *names: str) -> None:
        """Raise unless these sizes, or all sizes in these lists, are at least 1."""
        for name in names:
            sizes = getattr(self, name)
            for size in sizes if isinstance(sizes, list) else [sizes]:
                if size < 1:
                    raise ValueError(f"{type(self).__name__}: {name} is {sizes}, it must be at least 1")

    def settings(self) -> dict[str, Any]:
        """The arguments that make this configuration again: without the paths and versions that `to_dict` holds."""
        kinds = [kind for kind in type(self).__mro__ if issubclass(kind, QuantizerConfig)]
        names = {name for kind in kinds for name in inspect.signature(kind.__init__).parameters}
        return {name: getattr(self, name) for name in sorted(names - {"self", "kwargs"})}
