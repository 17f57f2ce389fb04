"""RecBaseTokenizer: items to semantic IDs to token ids, and back.

The tokens are `<pad>`, the codes `<a_0>`, `<a_1>`, ... of the first level, `<b_0>`, ... of the second and so on, and
`<bos>`, `<eos>`, `<unk>`, `<mask>`, in the order of `TokenLayout`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizer

from .centering import center, shrunk_mean
from .modeling_quantizer import Quantizer
from .quantizers import new_quantizer, quantizer_config
from .token_layout import TokenLayout

__all__ = ["CollisionPolicy", "RecBaseTokenizer"]

CollisionPolicy = Literal["keep", "reassign", "digit"]

FORMAT_VERSION = 2
QUANTIZER_FILE = "quantizer.safetensors"
QUANTIZER_CONFIG_FILE = "quantizer_config.json"
_TOKEN = re.compile(r"<[^<>\s]+>")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


class RecBaseTokenizer(PreTrainedTokenizer):
    """A tokenizer that carries its quantizer (a CL-VAE or another kind, with its codebooks) in a safetensors sidecar.

    As a text tokenizer it splits strings such as `<a_17><b_5><c_0><d_901>`. As an item tokenizer it turns item texts
    or item vectors into semantic IDs (`encode_items`), histories of them into token ids (`encode_history`), and both
    back (`decode_history`, `decode_items`).

    Args:
        quantizer_file: path of `quantizer.safetensors` (filled in by `from_pretrained`).
        quantizer_config_file: path of `quantizer_config.json` (filled in by `from_pretrained`).
        quantizer: a `Quantizer`, instead of the two files.
        text_encoder: name of the sentence encoder that the item vectors come from.
        text_encoder_revision: its revision, where one was pinned.
        item_template: the item-text template, as a dictionary.
        collisions: what a catalog does with different texts that the quantizer gives the same codes. `keep` leaves them
            in one bucket; `reassign` moves all but the nearest to the next free code of the last level; `digit` adds a
            level that counts them. Identical texts always share their semantic ID.
        fingerprint: the fingerprint recorded when the tokenizer was saved; checked against what was loaded.

    Raises:
        ValueError: no quantizer, a damaged sidecar, a sidecar that does not match the recorded fingerprint, or an
            unknown collision policy.

    >>> config = quantizer_config("clvae", input_dim=8, hidden_dims=[16], latent_dim=4, num_levels=2, codebook_size=16)
    >>> tokenizer = RecBaseTokenizer(quantizer=new_quantizer(config))
    >>> tokenizer("<a_3><b_0>")["input_ids"]
    [33, 4, 17]
    >>> tokenizer.codes_to_ids([[3, 0]]).tolist()
    [[4, 17]]
    >>> tokenizer.decode([33, 4, 17])
    '<bos><a_3><b_0>'
    """

    vocab_files_names: ClassVar[dict[str, str]] = {
        "quantizer_file": QUANTIZER_FILE,
        "quantizer_config_file": QUANTIZER_CONFIG_FILE,
    }
    model_input_names: ClassVar[list[str]] = ["input_ids", "attention_mask"]

    def __init__(
        self,
        quantizer_file: str | None = None,
        quantizer_config_file: str | None = None,
        quantizer: Quantizer | None = None,
        text_encoder: str | None = None,
        text_encoder_revision: str | None = None,
        item_template: dict[str, Any] | None = None,
        collisions: CollisionPolicy = "keep",
        fingerprint: str | None = None,
        pad_token: str = "<pad>",
        bos_token: str = "<bos>",
        eos_token: str = "<eos>",
        unk_token: str = "<unk>",
        mask_token: str = "<mask>",
        padding_side: str = "left",
        **kwargs: Any,
    ) -> None:
        for name in ("is_local", "local_files_only"):  # facts about one loading, which must not be saved with the next
            kwargs.pop(name, None)
        if quantizer is None:
            quantizer = _load_quantizer(quantizer_file, quantizer_config_file)
        self.quantizer = quantizer.eval()
        if collisions not in get_args(CollisionPolicy):
            raise ValueError(f"collisions is {collisions!r}; it must be one of {', '.join(get_args(CollisionPolicy))}")
        self.collisions: CollisionPolicy = collisions
        levels = quantizer.config.num_levels + (collisions == "digit")
        if levels > len(_LETTERS):
            raise ValueError(f"collisions 'digit' would add a level to {len(_LETTERS)}, for which there is no letter")
        self.layout = TokenLayout(levels, quantizer.config.codebook_size)
        self.text_encoder_name = text_encoder
        self.text_encoder_revision = text_encoder_revision
        self.item_template = item_template
        self.attached_text_encoder: Any = None
        self.fingerprint = self._compute_fingerprint()
        if fingerprint is not None and fingerprint != self.fingerprint:
            raise ValueError(
                f"{quantizer_file or 'the quantizer'} gives fingerprint {self.fingerprint}, but the tokenizer was "
                f"saved with {fingerprint}: {QUANTIZER_FILE}, {QUANTIZER_CONFIG_FILE} or tokenizer_config.json was "
                "changed since; restore or download the folder again"
            )

        tokens = [str(pad_token)]
        for letter in _LETTERS[: self.layout.num_levels]:
            tokens += [f"<{letter}_{code}>" for code in range(self.layout.codebook_size)]
        tokens += [str(bos_token), str(eos_token), str(unk_token), str(mask_token)]
        self._id_of_token = {token: index for index, token in enumerate(tokens)}
        self._token_of_id = tokens
        super().__init__(
            text_encoder=text_encoder,
            text_encoder_revision=text_encoder_revision,
            item_template=item_template,
            collisions=collisions,
            fingerprint=self.fingerprint,
            pad_token=pad_token,
            bos_token=bos_token,
            eos_token=eos_token,
            unk_token=unk_token,
            mask_token=mask_token,
            padding_side=padding_side,
            **kwargs,
        )

    @property
    def vocab_size(self) -> int:
        """Tokens in the layout; a model's vocabulary may be padded beyond it."""
        return len(self._token_of_id)

    # ---- what PreTrainedTokenizer asks of a subclass -----------------------------------------------------------

    def get_vocab(self) -> dict[str, int]:
        """Token to id."""
        return {**self._id_of_token, **self.added_tokens_encoder}

    def _tokenize(self, text: str, **kwargs: Any) -> list[str]:
        return _TOKEN.findall(text)

    def _convert_token_to_id(self, token: str) -> int:
        return self._id_of_token.get(token, self._id_of_token[str(self.unk_token)])

    def _convert_id_to_token(self, index: int) -> str:
        return self._token_of_id[index] if 0 <= index < len(self._token_of_id) else str(self.unk_token)

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Tokens are written without separators."""
        return "".join(tokens)

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """A history starts with `<bos>`; nothing ends it, because more may follow."""
        return [self.bos_token_id, *token_ids_0, *(token_ids_1 or [])]

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Write the quantizer's sidecar files, and a `tokenizer.json` that gives the same ids without this class."""
        prefix = f"{filename_prefix}-" if filename_prefix else ""
        weights, config, fallback = (
            os.path.join(save_directory, prefix + name)
            for name in (QUANTIZER_FILE, QUANTIZER_CONFIG_FILE, "tokenizer.json")
        )
        state = {
            name: tensor.detach().cpu().contiguous() for name, tensor in sorted(self.quantizer.state_dict().items())
        }
        save_file(state, weights, metadata={"format": "pt"})
        text = json.dumps(self._quantizer_settings(), indent=2, sort_keys=True)
        Path(config).write_text(text + "\n", encoding="utf-8")
        self.to_tokenizers().save(fallback)
        return weights, config, fallback

    def to_tokenizers(self) -> Any:
        """The same vocabulary as a Rust `tokenizers.Tokenizer`: for loading without this class, and for speed."""
        from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

        tokenizer = Tokenizer(models.WordLevel(self._id_of_token, unk_token=str(self.unk_token)))
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_TOKEN.pattern), behavior="removed", invert=True)
        tokenizer.decoder = decoders.Fuse()
        bos = str(self.bos_token)
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, self.bos_token_id)]
        )
        specials = (self.pad_token, self.bos_token, self.eos_token, self.unk_token, self.mask_token)
        tokenizer.add_special_tokens([AddedToken(str(token), special=True, normalized=False) for token in specials])
        return tokenizer

    # ---- vectors -----------------------------------------------------------------------------------------------

    def catalog_mean(self, vectors: np.ndarray) -> np.ndarray:
        """Mean of a catalog's (items, width) vectors, drawn towards the training corpus' mean where items are few.

        The corpus mean counts as `mean_shrinkage` items, so that a catalog of one item is not centered onto zero.
        """
        config, corpus_mean = self.quantizer.config, self.quantizer.corpus_mean.cpu().numpy()
        return shrunk_mean(vectors, corpus_mean, config.mean_shrinkage)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors (items, width) float32 of item texts, by the text encoder that the tokenizer names.

        Raises:
            ValueError: the tokenizer names no encoder, or another than the attached one, or its width differs from the
                quantizer's.
            TypeError: `texts` is one string.
            ImportError: the recbase_hf package, which loads encoders, is not there.
        """
        if isinstance(texts, str):
            raise TypeError("texts is a single string; give a list of texts, one an item")
        if self.attached_text_encoder is None:
            if self.text_encoder_name is None:
                raise ValueError(
                    "this tokenizer names no text encoder: pass vectors, set `tokenizer.attached_text_encoder`, or "
                    "train a tokenizer that names one (recbase train-tokenizer does)"
                )
            # Looked up, not imported: this module also runs where the package is not installed, and the copy of it
            # that travels with a checkpoint is used beside the package.
            loader = getattr(sys.modules.get("recbase_hf"), "load_text_encoder", None)
            if loader is None:
                raise ImportError(
                    f"encoding texts with {self.text_encoder_name} needs the recbase_hf package "
                    '(pip install "recbase-hf[text]", then import recbase_hf); vectors and codes need nothing'
                )
            self.attached_text_encoder = loader(self.text_encoder_name, self.text_encoder_revision)
        attached = getattr(self.attached_text_encoder, "name", self.text_encoder_name)
        if self.text_encoder_name is not None and attached != self.text_encoder_name:
            raise ValueError(
                f"the attached text encoder is {attached}, but the tokenizer was trained with "
                f"{self.text_encoder_name}; vectors of one encoder mean nothing to the other"
            )
        vectors = np.asarray(self.attached_text_encoder.encode(list(texts)), dtype=np.float32)
        if vectors.shape[1] != self.quantizer.config.input_dim:
            raise ValueError(
                f"the text encoder gives vectors {vectors.shape[1]} wide, the quantizer takes "
                f"{self.quantizer.config.input_dim}: attach the encoder that the tokenizer was trained with, "
                f"{self.text_encoder_name}"
            )
        return vectors

    # ---- items, codes, ids -------------------------------------------------------------------------------------

    def encode_items(self, items: Sequence[str] | np.ndarray, *, mean: np.ndarray | None = None) -> np.ndarray:
        """The quantizer's codes (items, quantizer levels) int64 of item texts or of (items, width) vectors.

        They are semantic IDs as they stand where collisions are kept; otherwise `ItemCatalog` settles them.

        Args:
            items: texts, or vectors of unit length as the text encoder gives them (not centered).
            mean: the mean to subtract: `catalog_mean` of the whole catalog that the items belong to. Default the mean
                of the training corpus, so that an item's code does not depend on what else is in the call.

        Raises:
            ValueError: the vectors have another width than the quantizer takes, or hold NaN or infinity.
        """
        vectors = items if isinstance(items, np.ndarray) else self.encode_texts(items)
        width = self.quantizer.config.input_dim
        if vectors.ndim != 2 or vectors.shape[1] != width:
            raise ValueError(f"the quantizer takes vectors of shape (items, {width}), got {vectors.shape}")
        mean = self.quantizer.corpus_mean.cpu().numpy() if mean is None else mean
        device = self.quantizer.corpus_mean.device
        return self.quantizer.encode(torch.from_numpy(center(vectors, mean)).to(device)).cpu().numpy()

    def decode_items(self, codes: Any) -> np.ndarray:
        """Centered vectors (items, width) float32 that (items, levels) semantic IDs stand for; a digit adds nothing."""
        codes = torch.from_numpy(self.layout.checked(codes)[:, : self.quantizer.config.num_levels])
        return self.quantizer.decode(codes).cpu().numpy()

    def codes_to_ids(self, codes: Any) -> np.ndarray:
        """Token ids (items, levels) int64 of (items, levels) codes."""
        return self.layout.codes_to_ids(codes)

    def ids_to_codes(self, ids: Any) -> np.ndarray:
        """Codes (items, levels) int64 of (items, levels) token ids; an id of another level is an error."""
        return self.layout.ids_to_codes(ids)

    def encode_history(self, codes: Any) -> list[int]:
        """`<bos>`, then the token ids of (items, levels) codes, oldest item first."""
        return self.layout.history_ids(codes).tolist()

    def decode_history(self, ids: Sequence[int]) -> np.ndarray:
        """The (items, levels) codes in a row of token ids; special tokens are dropped."""
        return self.layout.ids_to_codes([index for index in ids if 1 <= index <= self.layout.num_codes])

    # ---- identity ----------------------------------------------------------------------------------------------

    def _quantizer_settings(self) -> dict[str, Any]:
        kind = {"format_version": FORMAT_VERSION, "model_type": self.quantizer.config.model_type}
        return {**kind, **self.quantizer.config.settings()}

    def _compute_fingerprint(self) -> str:
        """Hash of all that makes codes comparable: quantizer, text encoder, template and collision policy."""
        digest = hashlib.sha256()
        settings = [
            self._quantizer_settings(),
            self.text_encoder_name,
            self.text_encoder_revision,
            self.item_template,
            self.collisions,
        ]
        digest.update(json.dumps(settings, sort_keys=True).encode())
        for name, tensor in sorted(self.quantizer.state_dict().items()):
            array = tensor.detach().cpu().contiguous().numpy()
            digest.update(f"{name}{array.dtype}{array.shape}".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()[:16]


def _load_quantizer(weights: str | None, config: str | None) -> Quantizer:
    if weights is None or config is None:
        raise ValueError(
            f"RecBaseTokenizer needs {QUANTIZER_FILE} and {QUANTIZER_CONFIG_FILE} in its folder, or a quantizer"
        )
    try:
        settings = json.loads(Path(config).read_text(encoding="utf-8"))
        state = load_file(weights)
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{weights} or {config} is damaged ({error}); restore or download the folder again") from error
    format_version = settings.pop("format_version", 0)
    if format_version > FORMAT_VERSION:
        raise ValueError(f"{config} was written by a newer recbase-hf; upgrade with: pip install -U recbase-hf")
    if format_version < FORMAT_VERSION:
        raise ValueError(f"{config} was written by recbase-hf 0.1.0, in a form that is gone; train the tokenizer anew")
    try:
        quantizer = new_quantizer(quantizer_config(settings.pop("model_type", "without a model_type"), **settings))
    except ValueError as error:
        raise ValueError(f"{config}: {error}") from error
    try:
        quantizer.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise ValueError(f"{weights} does not fit {config}: {error}") from error
    quantizer.require_finite(weights)
    return quantizer


RecBaseTokenizer.register_for_auto_class("AutoTokenizer")
