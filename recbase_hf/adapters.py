"""Adapter folders: which base they belong to, and how they are put over it.

An adapter is what PEFT knows as LoRA, also where it has embedding rows alone, so that several of any kind share a base.
Its folder is PEFT's; `training.json` in it records the tokenizer and the weights that it was trained over.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from recbase_hf.bundle import bundle_file, hash_of_weights, load_bundle, located
from recbase_hf.errors import FingerprintMismatchError
from recbase_hf.files import read_json
from recbase_hf.fingerprints import require_same_fingerprint

__all__ = [
    "ADAPTER_CONFIG",
    "RECORD",
    "Base",
    "base_of_adapter",
    "load_over",
    "merged_bundle",
    "quiet_peft",
    "require_base",
    "require_peft",
]

ADAPTER_CONFIG = "adapter_config.json"
RECORD = "training.json"
WEIGHTS = "adapter_model.safetensors"


class Base(NamedTuple):
    """What an adapter was trained over.

    Attributes:
        name: Hub id, or folder.
        fingerprint: of the tokenizer.
        weights: hash of the files of the language model.
    """

    name: str
    fingerprint: str
    weights: str

    def recorded(self) -> dict[str, str]:
        """JSON values; of a folder its name alone, since where it lies is nobody else's business."""
        return {**self._asdict(), "name": Path(self.name).name if Path(self.name).is_absolute() else self.name}


def require_peft() -> None:
    """Raise where PEFT is missing.

    Raises:
        ImportError: says how to get it.
    """
    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise ImportError('adapters need peft: pip install "recbase-hf[train]"') from error


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Without the warning that PEFT calls something by a name of before transformers 5."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        yield


def base_of_adapter(name_or_path: str | Path, **hub: Any) -> tuple[str, Base | None]:
    """The base that an adapter names, and what it recorded of it; None where PEFT alone has written the folder.

    Args:
        **hub: `revision`, `cache_dir`, `token`, `local_files_only`.

    Raises:
        FileNotFoundError: there is no such folder, or it holds no adapter.
        ValueError: a file is damaged.
    """
    path = bundle_file(name_or_path, ADAPTER_CONFIG, **hub)
    if path is None:
        raise FileNotFoundError(
            f"{name_or_path} holds no adapter ({ADAPTER_CONFIG} is missing); give the folder that recbase finetune "
            "left, or the id of an adapter on the Hub"
        )
    named = str(read_json(path).get("base_model_name_or_path"))
    record = bundle_file(name_or_path, RECORD, **hub)
    recorded = None if record is None else read_json(record).get("base")
    if not recorded:
        return named, None
    try:
        return named, Base(**{name: recorded[name] for name in Base._fields})
    except KeyError as error:
        raise ValueError(f"{record}: base has no {error}; restore or download the adapter again") from error


def require_base(
    name_or_path: str | Path, base: Base | None, *, fingerprint: str, weights: str | None, name: str | Path
) -> None:
    """Check that an adapter was trained over this base.

    Args:
        name_or_path: of the adapter, for messages.
        base: what it recorded.
        fingerprint: of the tokenizer at hand.
        weights: hash of the weights at hand; None where it is not known where they come from.
        name: of the base at hand, for messages.

    Raises:
        FingerprintMismatchError: it was trained over other weights, or for another tokenizer.
    """
    if base is None:
        return
    require_same_fingerprint(tokenizer=fingerprint, **{f"adapter {name_or_path}": base.fingerprint})
    if weights is not None and weights != base.weights:
        raise FingerprintMismatchError(
            f"the adapter {name_or_path} was trained over {base.name} (weights {base.weights}), and {name} has other "
            f"weights ({weights}); load it over its own base, or fine-tune again over this one"
        )


def merged_bundle(name_or_path: str | Path, base: str | Path | None = None, **hub: Any) -> tuple[Any, Any, str]:
    """An adapter's base with the adapter worked into its weights: language model, tokenizer and name of the base.

    Args:
        name_or_path: of the adapter.
        base: bundle; default the one that the adapter names.
        **hub: of the adapter: `revision`, `cache_dir`, `token`, `local_files_only`.

    Raises:
        FingerprintMismatchError: the adapter belongs to another base.
        ValueError: a file is damaged.
    """
    named, recorded = base_of_adapter(name_or_path, **hub)
    base = _findable(named, recorded) if base is None else base
    model, tokenizer = load_bundle(base)
    weights = None if recorded is None else hash_of_weights(base)
    require_base(name_or_path, recorded, fingerprint=tokenizer.fingerprint, weights=weights, name=base)
    merged = load_over(model, name_or_path, "default", **hub).merge_and_unload(safe_merge=True)
    return merged.eval(), tokenizer, str(base)


def _findable(named: str, recorded: Base | None) -> str:
    """The base; one that comes with the package lies elsewhere on another machine, but has the same name."""
    if recorded is None or Path(named).is_dir() or not Path(located(recorded.name)).is_dir():
        return named
    return recorded.name


def load_over(model: Any, name_or_path: str | Path, name: str, **hub: Any) -> Any:
    """Put a saved adapter into a language model, in place; returns PEFT's model around it.

    Args:
        model: a `Qwen2ForCausalLM`, or PEFT's model around one that has adapters already.
        name_or_path: of the adapter.
        name: of PEFT, by which it is made active.
        **hub: `revision`, `cache_dir`, `token`, `local_files_only`.

    Raises:
        FileNotFoundError: the adapter has no weights.
        ValueError: they are damaged or do not fit the model, or the adapter is no LoRA; the model is as it was.
    """
    require_peft()
    from peft import PeftConfig, PeftModel, PeftModelForCausalLM
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = bundle_file(name_or_path, WEIGHTS, **hub)
    if path is None:
        raise FileNotFoundError(f"{name_or_path} has no {WEIGHTS}; make or download the adapter again")
    config = PeftConfig.from_pretrained(str(name_or_path), **hub)
    if config.peft_type != "LORA":
        raise ValueError(
            f"{name_or_path} is an adapter of the kind {config.peft_type}; only LoRA can be put over a model"
        )
    config.inference_mode = True
    wrapped = model if isinstance(model, PeftModel) else None
    try:
        state = load_file(path)
        with quiet_peft():
            if wrapped is None:
                wrapped = PeftModelForCausalLM(model, config, name)
            else:
                wrapped.add_adapter(name, config)
        _take_weights(wrapped, name, state)
    except (SafetensorError, RuntimeError, ValueError) as error:
        if wrapped is not None and name in wrapped.peft_config:
            _take_away(wrapped, name)
        raise ValueError(
            f"the adapter {name_or_path} cannot be loaded ({error}): it is damaged (restore or download it again), or "
            "does not fit this base"
        ) from error
    return wrapped


def _take_weights(wrapped: Any, name: str, state: dict[str, Any]) -> None:
    """Copy the weights of a file; PEFT would leave what is missing at random, and only warn.

    Raises:
        ValueError: a weight is missing, too many, or of another shape.
    """
    import torch

    # Tied rows are one parameter, which stands here, as in the file, under its first name alone.
    wanted = {
        f"{key}.".replace(f".{name}.", ".").removesuffix("."): parameter
        for key, parameter in wrapped.named_parameters()
        if f".{name}." in f"{key}."
    }
    for key in sorted(wanted.keys() ^ state.keys()):
        raise ValueError(f"{key} is {'missing' if key in wanted else 'not a weight that its configuration names'}")
    for key, parameter in wanted.items():
        if parameter.shape != state[key].shape:
            raise ValueError(f"{key} has the shape {tuple(state[key].shape)}, the base wants {tuple(parameter.shape)}")
    with torch.no_grad():
        for key, parameter in wanted.items():
            parameter.copy_(state[key])


def _take_away(wrapped: Any, name: str) -> None:
    if len(wrapped.peft_config) > 1:
        wrapped.delete_adapter(name)
    else:
        wrapped.unload()
