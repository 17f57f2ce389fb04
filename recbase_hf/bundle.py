"""The bundle: one folder that restores language model, tokenizer and quantizer, and refuses parts that do not match."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbase_hf.files import atomic_folder, read_json, sha256_of_file, write_json
from recbase_hf.fingerprints import require_same_fingerprint
from recbase_hf.hub import explained_hub_errors

if TYPE_CHECKING:
    from recbase_hf.scoring.calibration import Calibration

__all__ = [
    "CALIBRATION_FILE",
    "bundle_file",
    "hash_of_weight_files",
    "hash_of_weights",
    "load_bundle",
    "located",
    "name_of_bundle",
    "require_folder_if_path",
    "save_bundle",
]

FORMAT_VERSION = 1
CALIBRATION_FILE = "calibration.json"


def save_bundle(
    folder: str | Path,
    model: Any,
    tokenizer: Any,
    *,
    card: str | None = None,
    record: dict[str, Any] | None = None,
    calibration: Calibration | None = None,
) -> None:
    """Write a plain `Qwen2ForCausalLM` checkpoint with tokenizer, quantizer and card, whole or not at all.

    Args:
        model: a `Qwen2ForCausalLM` trained on the tokenizer's semantic IDs.
        tokenizer: the `RecBaseTokenizer`.
        card: content of the `README.md`.
        record: how the model was trained, for `training.json`.
        calibration: fitted for this model. Without one, that of an earlier bundle in the folder is removed: it was
            fitted for other weights.

    Raises:
        FingerprintMismatchError: the calibration was fitted for another tokenizer.
        ValueError: there are adapters in the model.
    """
    from recbase_hf.auto import RecBaseScoringPipeline

    if getattr(model, "peft_config", None):
        raise ValueError(
            "there are adapters in the model, and a bundle holds plain weights: save it before adapters are loaded, or "
            "work one into its weights with recbase merge"
        )

    model.config.recbase = {"format_version": FORMAT_VERSION, "fingerprint": tokenizer.fingerprint}
    model.config.use_cache = True
    # Without a device, a pipeline moves the model to the first accelerator.
    pipeline = RecBaseScoringPipeline(model=model, tokenizer=tokenizer, task="recbase-scoring", device=model.device)
    with atomic_folder(folder) as temporary:
        pipeline.save_pretrained(temporary)
        if card is not None:
            (temporary / "README.md").write_text(card, encoding="utf-8")
        if record is not None:
            write_json(temporary / "training.json", record)
        if calibration is not None:
            calibration.save(temporary)
    if calibration is None:  # the earlier one stays where the new bundle has no file of its name
        (Path(folder) / CALIBRATION_FILE).unlink(missing_ok=True)


def load_bundle(
    name_or_path: str | Path, *, dtype: Any = None, device: str | None = None, quantization: Any = None, **hub: Any
) -> tuple[Any, Any]:
    """Load language model (evaluation mode, sdpa attention) and tokenizer of a folder or a Hub repository.

    `recbase-mini` comes with the package.

    Args:
        dtype: default float32 on the CPU, the checkpoint's own elsewhere.
        device: default the first accelerator, else the CPU.
        quantization: configuration of transformers, to keep the weights in fewer bits.
        **hub: `revision`, `cache_dir`, `token`, `local_files_only` of `from_pretrained`.

    Raises:
        FileNotFoundError: a local folder lacks a part of the bundle.
        FingerprintMismatchError: language model and tokenizer come from different bundles.
        OSError: there is no such folder or repository, it cannot be reached, or the token is not accepted.
        ValueError: not a RecBase bundle, or a file is damaged.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForCausalLM

    from recbase_hf.auto import RecBaseTokenizer

    name_or_path = located(name_or_path)
    require_folder_if_path(name_or_path)
    if Path(name_or_path).is_dir():
        _require_files(Path(name_or_path))
    with explained_hub_errors(str(name_or_path)):
        recorded = getattr(AutoConfig.from_pretrained(name_or_path, **hub), "recbase", None)
    if not recorded:
        raise ValueError(f"{name_or_path} is not a RecBase bundle: its config.json has no `recbase` block")
    if recorded["format_version"] > FORMAT_VERSION:
        raise ValueError(f"{name_or_path} was written by a newer recbase-hf; upgrade with: pip install -U recbase-hf")
    tokenizer = RecBaseTokenizer.from_pretrained(name_or_path, **hub)
    require_same_fingerprint(tokenizer=tokenizer.fingerprint, model=recorded["fingerprint"])
    if device is None:
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        device = "cpu" if accelerator is None else accelerator.type
    if dtype is None:
        dtype = torch.float32 if device == "cpu" else "auto"
    # Pickled weights are never read; a size mismatch is let through to be reported by name, as missing weights are.
    options: dict[str, Any] = {"use_safetensors": True, "ignore_mismatched_sizes": True, "output_loading_info": True}
    if quantization is not None:  # such a model is put on its device as it is loaded
        options |= {"quantization_config": quantization, "device_map": {"": device}}
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            name_or_path, dtype=dtype, attn_implementation="sdpa", **options, **hub
        )
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(
            f"the weights in {name_or_path} are damaged ({error}); restore or download them again"
        ) from error
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info.get(kind):
            raise ValueError(
                f"the weights in {name_or_path} are not whole, {kind.replace('_', ' ')}: {sorted(info[kind])[:5]}"
            )
    return (model if quantization is not None else model.to(device)).eval(), tokenizer


def located(name_or_path: str | Path) -> str | Path:
    """The folder of a bundle that comes with the package, such as `recbase-mini`; anything else as it is.

    A folder of that name in the working folder goes first.
    """
    name = str(name_or_path)
    if "/" in name or os.sep in name or Path(name).is_dir():
        return name_or_path
    folder = Path(str(resources.files("recbase_hf.checkpoints"))) / name
    return folder if (folder / "config.json").is_file() else name_or_path


def name_of_bundle(name_or_path: str | Path) -> str:
    """What people call it: the folder's name, or that of the training around it, which calls all of them `model`.

    >>> name_of_bundle("runs/mine/model"), name_of_bundle("reczoo/recbase-mini")
    ('mine', 'recbase-mini')
    """
    path = Path(name_or_path)
    return path.resolve().parent.name if path.name == "model" else path.name


def bundle_file(name_or_path: str | Path, name: str, **hub: Any) -> Path | None:
    """Where one file of a bundle lies, downloaded from the Hub if need be; None if the bundle lacks it.

    Args:
        **hub: `revision`, `cache_dir`, `token`, `local_files_only`.

    Raises:
        OSError: there is no such folder or repository.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    name_or_path = located(name_or_path)
    require_folder_if_path(name_or_path)
    if Path(name_or_path).is_dir():
        path = Path(name_or_path) / name
        return path if path.exists() else None
    try:
        return Path(hf_hub_download(str(name_or_path), name, **hub))
    except EntryNotFoundError:  # also where the Hub cannot be reached and the cached bundle came without the file
        return None


def hash_of_weights(name_or_path: str | Path, **hub: Any) -> str:
    """Sixteen hexadecimal digits that stand for the files of a bundle's language model.

    Args:
        **hub: `revision`, `cache_dir`, `token`, `local_files_only`.

    Raises:
        FileNotFoundError: there are no weights.
    """
    index = bundle_file(name_or_path, "model.safetensors.index.json", **hub)
    names = ["model.safetensors"] if index is None else sorted(set(read_json(index)["weight_map"].values()))
    hashes = []
    for name in names:
        path = bundle_file(name_or_path, name, **hub)
        if path is None:
            raise FileNotFoundError(f"{name_or_path} has no {name}; it is not a whole bundle")
        hashes.append(sha256_of_file(path))
    return hash_of_weight_files(hashes)


def hash_of_weight_files(hashes: Iterable[str]) -> str:
    """What `hash_of_weights` gives, from the sha256 of each file, in the order of their names."""
    return hashlib.sha256("".join(hashes).encode()).hexdigest()[:16]


def require_folder_if_path(name_or_path: str | Path) -> None:
    """Raise if this can only be a folder and is not there, instead of asking the Hub for a repository of that name.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    path, name = Path(name_or_path).expanduser(), str(name_or_path)
    if "/" not in name and os.sep not in name and not path.is_dir():
        raise FileNotFoundError(
            f"there is no folder {name}, and no model of that name comes with the package (recbase-mini does); models "
            "on the Hub are named OWNER/NAME"
        )
    looks_like_path = isinstance(name_or_path, Path) or name.startswith((".", "/", "~")) or name.count("/") > 1
    if not path.is_dir() and (looks_like_path or (path.parent != Path() and path.parent.is_dir())):
        raise FileNotFoundError(
            f"there is no folder {name}; give a folder that holds a model, or the id of one on the Hub"
        )


def _require_files(folder: Path) -> None:
    names = ("config.json", "tokenizer_config.json", "quantizer_config.json", "quantizer.safetensors")
    missing = [name for name in names if not (folder / name).exists()]
    if (folder / "adapter_config.json").exists():
        raise FileNotFoundError(
            f"{folder} is an adapter, not a bundle: load its base, then scorer.load_adapter({str(folder)!r}); or make "
            f"a bundle of both with recbase merge --adapter {folder}"
        )
    if missing:
        raise FileNotFoundError(f"{folder} is not a whole RecBase bundle: {', '.join(missing)} missing")
    for name in names[:3]:
        read_json(folder / name)  # names the file where transformers would only say that some JSON is broken
