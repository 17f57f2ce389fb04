"""The quantizers by the names that people choose them by, and what each is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from recbase_hf.auto import QuantizerConfig, quantizer_config
from recbase_hf.quantizers.training import QuantizerTraining

__all__ = ["KINDS", "Kind", "config_of_kind", "require_applicable", "training_of_kind"]

_K_MEANS = ("kmeans_start", "kmeans_iterations")
_GRADIENT = ("batch_size", "learning_rate", "max_steps_per_level", "evaluate_every")
_CURRICULUM = ("curriculum", "epochs_per_level", "patience", "tolerance", "replace_unused")


@dataclass(frozen=True)
class Kind:
    """What a name stands for.

    Attributes:
        model_type: of the quantizer.
        config: settings by which it differs from the defaults of that type.
        training: settings by which its fitting differs from the defaults of `QuantizerTraining`.
        ignores: settings of `QuantizerTraining` that mean nothing to it.
    """

    model_type: str
    config: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    ignores: tuple[str, ...] = ()


KINDS = {
    "product": Kind("product", ignores=_CURRICULUM),
    "fsq": Kind("fsq", ignores=(*_CURRICULUM, *_K_MEANS)),
    "cl-vae": Kind("clvae"),
    # The CL-VAE without its curriculum and its losses; codes are started and replaced alike.
    "rq-vae": Kind(
        "clvae",
        {"linear_path": False, "kl_weight": 0.0, "entropy_weight": 0.0, "neighbor_weight": 0.0},
        {"curriculum": "none"},
    ),
    # Few items that weigh much would draw whole codes to themselves, each to one item.
    "residual-kmeans": Kind("residual_kmeans", training={"domain_balance": 0.0}, ignores=(*_CURRICULUM, *_GRADIENT)),
}


def training_of_kind(kind: str, training: QuantizerTraining) -> QuantizerTraining:
    """The training with the kind's own values where it has the general default.

    >>> training_of_kind("rq-vae", QuantizerTraining()).curriculum
    'none'
    """
    general = QuantizerTraining()
    own = {
        name: value for name, value in KINDS[kind].training.items() if getattr(training, name) == getattr(general, name)
    }
    return replace(training, **own)


def require_applicable(kind: str, training: QuantizerTraining) -> None:
    """Raise if a setting that differs from its general default means nothing to the kind.

    Raises:
        ValueError: names the setting and the kinds that heed it.

    >>> require_applicable("product", QuantizerTraining(patience=5))
    Traceback (most recent call last):
    ValueError: patience does not apply to the quantizer product, only to cl-vae, rq-vae; leave it out
    """
    general = QuantizerTraining()
    for name in KINDS[kind].ignores:
        if getattr(training, name) != getattr(general, name):
            raise _inapplicable(name, kind, [other for other in KINDS if name not in KINDS[other].ignores])


def config_of_kind(kind: str, *, input_dim: int, codebook_size: int | None = None, **settings: Any) -> QuantizerConfig:
    """The configuration of a kind of quantizer.

    Args:
        kind: a name of `KINDS`.
        input_dim: width of the item vectors.
        codebook_size: codes a level; default 1024, or the points of the `grid` that is given.
        settings: of that kind; what is left out takes the kind's default.

    Raises:
        ValueError: there is no such kind, it does not have one of the settings, or a value is impossible.

    >>> config_of_kind("fsq", input_dim=16, codebook_size=32).grid
    [4, 4, 2]
    """
    if kind not in KINDS:
        raise ValueError(f"unknown quantizer {kind!r}; choose from {', '.join(KINDS)}")
    model_type, preset = KINDS[kind].model_type, KINDS[kind].config
    for name in settings:
        if name not in _settings_of(kind):
            raise _inapplicable(name, kind, [other for other in KINDS if name in _settings_of(other)])
    settings = {**preset, **settings, "input_dim": input_dim}
    if kind == "fsq" and "grid" not in settings:
        settings["grid"] = _grid_of(codebook_size or 1024)
    elif codebook_size is not None:
        settings["codebook_size"] = codebook_size
    if kind == "product" and "level_dim" not in settings:
        settings["level_dim"] = max(1, min(6, input_dim // max(1, settings.get("num_levels", 4))))
    return quantizer_config(model_type, **settings)


def _settings_of(kind: str) -> dict[str, Any]:
    return quantizer_config(KINDS[kind].model_type, input_dim=1024).settings()


def _inapplicable(name: str, kind: str, others: Sequence[str]) -> ValueError:
    only = f", only to {', '.join(others)}" if others else ""
    return ValueError(f"{name} does not apply to the quantizer {kind}{only}; leave it out")


def _grid_of(codebook_size: int) -> list[int]:
    """Scalars of four steps, and one of two where needed; few steps carry over to new domains better than many."""
    bits = codebook_size.bit_length() - 1
    if codebook_size < 2 or codebook_size != 2**bits:
        raise ValueError(
            f"a codebook of {codebook_size} codes is no grid of fours and twos; give the grid itself, such as 8 8 8 6 5"
        )
    return [4] * (bits // 2) + [2] * (bits % 2)
