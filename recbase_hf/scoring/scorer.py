"""RecBaseScorer: what users meet. Item ids in, scores and item ids out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from recbase_hf.bundle import load_bundle, save_bundle
from recbase_hf.catalog import ItemCatalog
from recbase_hf.fingerprints import require_same_fingerprint
from recbase_hf.scoring.method import ScoreMethod, checked_method
from recbase_hf.scoring.naive import score_naively
from recbase_hf.scoring.tree import score_by_tree

__all__ = ["RecBaseScorer", "Recommendation"]

Strategy = Literal["tree", "naive"]
_STRATEGIES: dict[str, Any] = {"tree": score_by_tree, "naive": score_naively}


class Recommendation(NamedTuple):
    """One recommended item."""

    item_id: str
    title: str
    score: float
    """Natural-log probability."""


class RecBaseScorer:
    """Scores candidate items as the next item of a history, and recommends the best of a catalog.

    Args:
        model: a `Qwen2ForCausalLM` over semantic IDs.
        tokenizer: the `RecBaseTokenizer` that it was trained with.
        strategy: `tree` (fast) or `naive` (one forward a candidate, the reference); both are exact.

    Raises:
        ValueError: the model's vocabulary is smaller than the tokenizer's, or the strategy is unknown.
        FingerprintMismatchError: the model comes from a bundle with another tokenizer.
    """

    def __init__(self, model: Any, tokenizer: Any, *, strategy: Strategy = "tree") -> None:
        if model.config.vocab_size < tokenizer.vocab_size:
            raise ValueError(
                f"the model has {model.config.vocab_size} tokens, the tokenizer {tokenizer.vocab_size}: "
                "they do not belong together"
            )
        if strategy not in _STRATEGIES:
            raise ValueError(f"strategy is {strategy!r}; it must be one of {', '.join(_STRATEGIES)}")
        recorded = getattr(model.config, "recbase", None)
        if recorded is not None:
            require_same_fingerprint(tokenizer=tokenizer.fingerprint, model=recorded["fingerprint"])
        if model.config._attn_implementation not in ("sdpa", "eager"):
            model.set_attn_implementation("sdpa")  # others cannot show a candidate only its own prefixes
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.strategy = strategy

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        dtype: Any = None,
        device: str | None = None,
        text_encoder: Any = None,
        strategy: Strategy = "tree",
        **hub: Any,
    ) -> RecBaseScorer:
        """Load a bundle from a folder or the Hub.

        Args:
            dtype: default float32 on the CPU, the checkpoint's own elsewhere.
            device: default the first accelerator, else the CPU.
            text_encoder: an object with `encode(texts)`; default the encoder that the bundle names, loaded when the
                first text is to be encoded.
            **hub: `revision`, `cache_dir`, `token`, `local_files_only`.
        """
        model, tokenizer = load_bundle(name_or_path, dtype=dtype, device=device, **hub)
        tokenizer.attached_text_encoder = text_encoder
        return cls(model, tokenizer, strategy=strategy)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the bundle into a folder."""
        save_bundle(folder, self.model, self.tokenizer)

    def __repr__(self) -> str:
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        return f"RecBaseScorer({parameters:,} parameters, {self.tokenizer.fingerprint}, strategy={self.strategy!r})"

    @property
    def max_history(self) -> int:
        """Items of a history that fit the model's context beside a candidate; older ones are dropped."""
        levels = self.tokenizer.layout.num_levels
        return int((self.model.config.max_position_embeddings - 1) // levels - 1)

    def score(
        self,
        history: Sequence[Any],
        candidates: Sequence[Any],
        *,
        catalog: ItemCatalog,
        method: ScoreMethod = "catalog",
    ) -> Any:
        """Log-probability of each candidate as the next item.

        Args:
            history: item ids, oldest first (may be empty), or one such list a user.
            candidates: item ids (an id may come twice), or one such list a user.
            catalog: holds all these items; made with this scorer's tokenizer.
            method: `catalog`, normalized over the items of the catalog, or `joint`, the paper's score.

        Returns:
            A (candidates,) float32 array, or one such array a user. Histories longer than `max_history` lose their
            oldest items.

        Raises:
            UnknownItemError: an item is not in the catalog.
            FingerprintMismatchError: the catalog was made with another tokenizer.
            ValueError: the numbers of histories and candidate lists differ, or a score is not a number.

        Each candidate is scored by itself; other candidates do not change its score.
        """
        if _is_one_user(history) and _is_one_user(candidates):
            return self.score_rows([catalog.rows(history)], [catalog.rows(candidates)], catalog=catalog, method=method)[
                0
            ]
        if len(history) != len(candidates):
            raise ValueError(f"{len(history)} histories but {len(candidates)} candidate lists; give one each a user")
        histories = [catalog.rows(ids) for ids in history]
        return self.score_rows(histories, [catalog.rows(ids) for ids in candidates], catalog=catalog, method=method)

    def score_rows(
        self,
        histories: Sequence[np.ndarray],
        candidates: Sequence[np.ndarray],
        *,
        catalog: ItemCatalog,
        method: ScoreMethod = "catalog",
    ) -> list[np.ndarray]:
        """`score` for a batch of users, with catalog rows in place of item ids.

        Raises:
            IndexError: a row is not one of the catalog.
        """
        self._check(catalog)
        for rows in (*histories, *candidates):
            if len(rows) and not 0 <= rows.min() <= rows.max() < len(catalog):
                raise IndexError(
                    f"rows {rows.min()} to {rows.max()} are not all of the catalog's 0 to {len(catalog) - 1}"
                )
        histories = [rows[-self.max_history :] for rows in histories]
        scores = _STRATEGIES[self.strategy](self.model, catalog, histories, candidates, method=checked_method(method))
        for user, part in enumerate(scores):
            if np.isnan(part).any():
                raise ValueError(f"the model gives NaN scores (user {user}); its weights are damaged: load them again")
        return scores

    def recommend(
        self,
        history: Sequence[Any],
        k: int = 10,
        *,
        catalog: ItemCatalog,
        method: ScoreMethod = "catalog",
        exclude: Iterable[Any] = (),
        exclude_history: bool = True,
    ) -> Any:
        """The `k` items of the catalog with the highest scores, by scoring the whole catalog.

        Args:
            history: item ids, oldest first (may be empty), or one such list a user.
            k: how many.
            catalog: where to choose from.
            method: as in `score`.
            exclude: item ids that must not come back.
            exclude_history: whether the items of the history must not come back.

        Returns:
            A list of `Recommendation`, or one a user: distinct items of the catalog, best first; equal scores
            (colliding semantic IDs) in the catalog's order.

        Raises:
            ValueError: fewer than `k` items remain.
        """
        if not _is_one_user(history):
            options: dict[str, Any] = {"method": method, "exclude": list(exclude), "exclude_history": exclude_history}
            return [self.recommend(ids, k, catalog=catalog, **options) for ids in history]
        allowed = np.ones(len(catalog), dtype=bool)
        history_rows = catalog.rows(history)
        allowed[catalog.rows(exclude)] = False
        if exclude_history:
            allowed[history_rows] = False
        rows = np.flatnonzero(allowed)
        if k < 1:
            raise ValueError(f"k is {k}; it must be at least 1")
        if k > len(rows):
            raise ValueError(
                f"k is {k}, but {len(rows)} of the catalog's {len(catalog)} items remain to recommend from"
            )
        scores = self.score_rows([history_rows], [rows], catalog=catalog, method=method)[0]
        best = np.argsort(-scores, kind="stable")[:k]
        return [
            Recommendation(catalog.item_ids[row], catalog.titles[row], float(score))
            for row, score in zip(rows[best], scores[best], strict=True)
        ]

    def _check(self, catalog: ItemCatalog) -> None:
        require_same_fingerprint(tokenizer=self.tokenizer.fingerprint, catalog=catalog.fingerprint)


def _is_one_user(items: Any) -> bool:
    """Whether these are item ids, and not a list of such lists."""
    if isinstance(items, str):
        raise TypeError(f"give a list of item ids, not the single string {items!r}")
    return not any(isinstance(item, list | tuple | np.ndarray) for item in items)
