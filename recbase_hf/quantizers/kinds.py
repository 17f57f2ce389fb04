"""The quantizers by the names that people choose them by, and what each is made of."""

from __future__ import annotations

from typing import Any

from recbase_hf.auto import QuantizerConfig, quantizer_config

__all__ = ["KINDS", "config_of_kind"]

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "product": ("product", {}),
    "fsq": ("fsq", {}),
    "cl-vae": ("clvae", {}),
    "rq-vae": ("clvae", {"linear_path": False, "kl_weight": 0.0, "entropy_weight": 0.0, "neighbor_weight": 0.0}),
    "residual-kmeans": ("residual_kmeans", {}),
}
"""Name: the quantizer's model type, and the settings by which it differs from that type's defaults."""


def config_of_kind(kind: str, *, input_dim: int, codebook_size: int, **settings: Any) -> QuantizerConfig:
    """The configuration of a kind of quantizer.

    Args:
        kind: a name of `KINDS`.
        input_dim: width of the item vectors.
        codebook_size: codes a level.
        settings: of that kind; what is left out takes the kind's default.

    Raises:
        ValueError: there is no such kind, it does not have one of the settings, or a value is impossible.

    >>> config_of_kind("fsq", input_dim=16, codebook_size=32).grid
    [4, 4, 2]
    """
    if kind not in KINDS:
        raise ValueError(f"unknown quantizer {kind!r}; choose from {', '.join(KINDS)}")
    model_type, preset = KINDS[kind]
    unknown = settings.keys() - quantizer_config(model_type, input_dim=1024).settings().keys()
    if unknown:
        raise ValueError(f"{', '.join(sorted(unknown))} does not apply to the quantizer {kind}; leave it out")
    settings = {**preset, **settings, "input_dim": input_dim}
    if kind != "fsq":
        settings["codebook_size"] = codebook_size
    elif "grid" not in settings:
        settings["grid"] = _grid_of(codebook_size)
    if kind == "product" and "level_dim" not in settings:
        settings["level_dim"] = max(1, min(6, input_dim // settings.get("num_levels", 4)))
    return quantizer_config(model_type, **settings)


def _grid_of(codebook_size: int) -> list[int]:
    """Scalars of four steps, and one of two where needed; few steps carry over to new domains better than many."""
    bits = codebook_size.bit_length() - 1
    if codebook_size < 2 or codebook_size != 2**bits:
        raise ValueError(
            f"a codebook of {codebook_size} codes is no grid of fours and twos; give the grid itself, such as 8 8 8 6 5"
        )
    return [4] * (bits // 2) + [2] * (bits % 2)
