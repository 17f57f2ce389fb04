"""RecBaseScorer: what users meet. Item ids in, scores and item ids out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np

from recbase_hf.bundle import hash_of_weights, load_bundle, save_bundle
from recbase_hf.catalog import ItemCatalog
from recbase_hf.fingerprints import require_same_fingerprint
from recbase_hf.scoring.adapters import ServedAdapters
from recbase_hf.scoring.calibration import Calibration
from recbase_hf.scoring.choice import ItemChoice, as_list, is_one_list, rows_of_users
from recbase_hf.scoring.engine import Engine
from recbase_hf.scoring.method import ScoreMethod, SearchMethod, checked_alpha, checked_beams, checked_method
from recbase_hf.scoring.naive import score_naively
from recbase_hf.scoring.session import RecBaseSession
from recbase_hf.scoring.tree_attention import TREE_ATTENTION
from recbase_hf.scoring.walk import evaluating

if TYPE_CHECKING:
    from recbase_hf.publishing.push import Push
    from recbase_hf.scoring.adapted import AdaptedScorer

__all__ = ["RecBaseScorer", "Recommendation"]

Strategy = Literal["tree", "naive"]
DEFAULT_MEMORY_BUDGET = 1 << 30


class Recommendation(NamedTuple):
    """One recommended item."""

    item_id: str
    title: str
    score: float
    """Natural-log probability; of an `AdaptedScorer`, a number without unit."""


class RecBaseScorer:
    """Scores candidate items as the next item of a history, and recommends the best of a catalog.

    Args:
        model: a `Qwen2ForCausalLM` over semantic IDs. It gets the attention `recbase_tree`, which is sdpa in all other
            uses.
        tokenizer: the `RecBaseTokenizer` that it was trained with.
        strategy: `tree` (fast) or `naive` (one forward a candidate, the reference); both are exact.
        memory_budget: bytes for keys, values, activations and log-probabilities of what goes through the model
            together; weights, catalog and results are not in it. It changes no score.
        calibration: what `score_calibrated` uses, fitted for this model.

    Raises:
        ValueError: the model's vocabulary is smaller than the tokenizer's, or the strategy is unknown.
        TypeError: the memory budget is no whole number.
        FingerprintMismatchError: the model or the calibration comes from a bundle with another tokenizer.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        strategy: Strategy = "tree",
        memory_budget: int = DEFAULT_MEMORY_BUDGET,
        calibration: Calibration | None = None,
    ) -> None:
        if model.config.vocab_size < tokenizer.vocab_size:
            raise ValueError(
                f"the model has {model.config.vocab_size} tokens, the tokenizer {tokenizer.vocab_size}: "
                "they do not belong together"
            )
        if strategy not in get_args(Strategy):
            raise ValueError(f"strategy is {strategy!r}; it must be one of {', '.join(get_args(Strategy))}")
        if isinstance(memory_budget, bool) or not isinstance(memory_budget, int):
            raise TypeError(f"memory_budget is {memory_budget!r}; give a number of bytes, such as 1 << 30")
        recorded = getattr(model.config, "recbase", None)
        if recorded is not None:
            require_same_fingerprint(tokenizer=tokenizer.fingerprint, model=recorded["fingerprint"])
        if calibration is not None:
            require_same_fingerprint(tokenizer=tokenizer.fingerprint, calibration=calibration.fingerprint)
        model.set_attn_implementation(TREE_ATTENTION)
        self.model = model
        self.tokenizer = tokenizer
        self.strategy = strategy
        self.memory_budget = memory_budget
        self.calibration = calibration
        self._served = ServedAdapters(model, tokenizer.fingerprint, name="this model", weights=lambda: None)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        dtype: Any = None,
        device: str | None = None,
        text_encoder: Any = None,
        strategy: Strategy = "tree",
        memory_budget: int = DEFAULT_MEMORY_BUDGET,
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
        calibration = Calibration.load(name_or_path, **hub)
        scorer = cls(model, tokenizer, strategy=strategy, memory_budget=memory_budget, calibration=calibration)
        scorer._served = ServedAdapters(
            model, tokenizer.fingerprint, name=str(name_or_path), weights=lambda: hash_of_weights(name_or_path, **hub)
        )
        return scorer

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the bundle into a folder; an error once adapters are loaded (`recbase merge` makes a bundle of one)."""
        save_bundle(folder, self.model, self.tokenizer, calibration=self.calibration)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        license: str | None = None,
        record: dict[str, Any] | None = None,
        card_text: str | None = None,
        **options: Any,
    ) -> Push:
        """Publish the bundle, in one commit with its card.

        A scorer does not know how its model was trained: a folder that a training left is better published as it is,
        by `recbase push`.

        Args:
            repo_id: `owner/name`; made if it is not there.
            license: an identifier that the Hub knows.
            record: how the model was trained, for `training.json`.
            card_text: content of the `README.md`; default written from the template.
            **options: `private`, `revision`, `replace`, `dry_run`, `message`, `token` of
                `recbase_hf.publishing.push_folder`, whose errors these are.
        """
        from recbase_hf.publishing.objects import push_saved

        def save(folder: Path) -> None:
            save_bundle(folder, self.model, self.tokenizer, card=card_text, record=record, calibration=self.calibration)

        return push_saved(save, repo_id, license=license, **options)

    def __repr__(self) -> str:
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        return f"RecBaseScorer({parameters:,} parameters, {self.tokenizer.fingerprint}, strategy={self.strategy!r})"

    @property
    def max_history(self) -> int:
        """Items of a history that fit the model's context beside a candidate; older ones are dropped."""
        levels = self.tokenizer.layout.num_levels
        return int((self.model.config.max_position_embeddings - 1) // levels - 1)

    def kept(self, history: np.ndarray) -> np.ndarray:
        """The newest of (n,) catalog rows, as many as `max_history`."""
        return history[max(0, len(history) - self.max_history) :]

    # ---- adapters ----------------------------------------------------------------------------------------------

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the adapters that are loaded."""
        return self._served.names

    @property
    def active_adapter(self) -> str | None:
        """Name of the adapter that scores are made with; None is the base alone."""
        return self._served.active

    def load_adapter(self, name_or_path: str | Path, name: str, **hub: Any) -> None:
        """Load an adapter that was trained over this bundle; `set_adapter` makes it count.

        Several can be loaded; each takes the memory of its own few weights.

        Args:
            name_or_path: a folder that `recbase finetune` left, or a Hub id.
            name: for `set_adapter`.
            **hub: `revision`, `cache_dir`, `token`, `local_files_only`.

        Raises:
            FileNotFoundError: there is no such adapter.
            FingerprintMismatchError: it was trained over another base, or for another tokenizer. Other weights are only
                noticed by a scorer that `from_pretrained` has made.
            ImportError: peft is missing.
            ValueError: the name is taken, or a file is damaged or does not fit.
        """
        self._served.load(name_or_path, name, **hub)

    def set_adapter(self, name: str | None) -> None:
        """Score with one of the loaded adapters, or with the base alone (None).

        Catalogs and sessions can be used on: what they keep of another adapter's scores is made anew.

        Raises:
            ValueError: there is none of that name.
        """
        self._served.activate(name)

    # ---- scoring -----------------------------------------------------------------------------------------------

    def score(
        self,
        history: Sequence[Any],
        candidates: Sequence[Any],
        *,
        catalog: ItemCatalog,
        method: ScoreMethod = "catalog",
        alpha: float = 0.0,
    ) -> Any:
        """Log-probability of each candidate as the next item.

        Args:
            history: item ids, oldest first, or one such list a user; an empty list is one user without a history.
            candidates: item ids (an id may come twice), or one such list a user.
            catalog: holds all these items; made with this scorer's tokenizer.
            method: `catalog`, normalized over the items of the catalog, or `joint`, the paper's score.
            alpha: calibration, 0 to 1: this share of the score under an empty history is taken off, so that what is
                likely for everybody counts less. Those scores are computed once for a catalog and kept with it.

        Returns:
            A (candidates,) float32 array (float64 for a model in float64), or one such array a user. Histories longer
            than `max_history` lose their oldest items.

        Raises:
            UnknownItemError: an item is not in the catalog.
            FingerprintMismatchError: the catalog was made with another tokenizer.
            ValueError: the numbers of histories and candidate lists differ, alpha is out of range, a score is not a
                number, or not even one user fits the memory budget.

        Each candidate is scored by itself; other candidates do not change its score.
        """
        levels = self.score_levels(history, candidates, catalog=catalog, method=method, alpha=alpha)
        return [part.sum(axis=1) for part in levels] if isinstance(levels, list) else levels.sum(axis=1)

    def score_levels(
        self,
        history: Sequence[Any],
        candidates: Sequence[Any],
        *,
        catalog: ItemCatalog,
        method: ScoreMethod = "catalog",
        alpha: float = 0.0,
    ) -> Any:
        """`score`, code by code: (candidates, levels) whose rows sum to the scores, or one such array a user.

        With `catalog`, the last column includes minus the logarithm of the number of items that share the semantic ID.
        """
        histories, rows, one_user = rows_of_users(history, candidates, catalog)
        levels = self._score_rows(histories, rows, catalog, method, alpha)
        return levels[0] if one_user else levels

    def score_rows(
        self,
        histories: Sequence[np.ndarray],
        candidates: Sequence[np.ndarray],
        *,
        catalog: ItemCatalog,
        method: ScoreMethod = "catalog",
        alpha: float = 0.0,
    ) -> list[np.ndarray]:
        """`score` for a batch of users, with catalog rows in place of item ids.

        Raises:
            IndexError: a row is not one of the catalog.
        """
        histories, candidates = ([np.asarray(rows) for rows in part] for part in (histories, candidates))
        for rows in (*histories, *candidates):
            if len(rows) and not 0 <= rows.min() <= rows.max() < len(catalog):
                raise IndexError(
                    f"rows {rows.min()} to {rows.max()} are not all of the catalog's 0 to {len(catalog) - 1}"
                )
        return [part.sum(axis=1) for part in self._score_rows(histories, candidates, catalog, method, alpha)]

    def score_calibrated(self, history: Sequence[Any], candidates: Sequence[Any], *, catalog: ItemCatalog) -> Any:
        """`score` as the bundle's calibration corrects it: no log-probability, but made for ranking.

        Its `method` and `alpha` were fitted on training domains, as was the weight of what is added: how alike the
        candidate's own text is to those of the history, by which items that share a semantic ID differ.

        Args:
            history: as in `score`.
            candidates: as in `score`.
            catalog: as in `score`; with vectors, unless the weight is 0.

        Raises:
            ValueError: the bundle has no calibration, or an adapter is active, for which none was fitted; or as in
                `score`.
            DataError: the catalog has no vectors.
        """
        histories, rows, one_user = rows_of_users(history, candidates, catalog)
        scores = self.score_calibrated_rows(histories, rows, catalog=catalog)
        return scores[0] if one_user else scores

    def score_calibrated_rows(
        self,
        histories: Sequence[np.ndarray],
        candidates: Sequence[np.ndarray],
        *,
        catalog: ItemCatalog,
        calibration: Calibration | None = None,
    ) -> list[np.ndarray]:
        """`score_calibrated` for a batch of users, with catalog rows, and maybe by another calibration."""
        calibration = calibration or self.calibration
        if calibration is None:
            raise ValueError(
                "this bundle has no calibration; fit one on the data sets that the model was trained on: "
                "recbase calibrate --model BUNDLE --data FOLDER..."
            )
        if self.active_adapter is not None:
            raise ValueError(
                f"the calibration was fitted for the base, and adapter {self.active_adapter!r} is active: use score, "
                "or set_adapter(None); or merge the adapter (recbase merge) and calibrate the bundle that comes of it"
            )
        return calibration.scores(self, histories, candidates, catalog)

    def _score_rows(
        self,
        histories: Sequence[np.ndarray],
        candidates: Sequence[np.ndarray],
        catalog: ItemCatalog,
        method: ScoreMethod,
        alpha: float,
    ) -> list[np.ndarray]:
        histories = [self.kept(rows) for rows in histories]
        engine = self.engine(catalog, method, alpha)
        if self.strategy == "tree":
            return engine.score(histories, candidates)
        with evaluating(self.model):
            scores = score_naively(self.model, catalog, histories, candidates, method=method)
            prior = None
            if alpha:
                empty = [rows[:0] for rows in histories]
                prior = score_naively(self.model, catalog, empty, candidates, method=method)
        if prior is not None:
            scores = [part - alpha * of_empty for part, of_empty in zip(scores, prior, strict=True)]
        return scores

    def adapt(self, histories: Sequence[Any], *, catalog: ItemCatalog, seed: int = 0) -> AdaptedScorer:
        """A scorer for one domain, whose weights are fitted to the histories of its users, without any label.

        How much the model, the texts and popularity among these histories count follows from how well each finds the
        newest item of the histories themselves among random ones. For a domain that the model does not know this ranks
        far better than any score of one user alone, mostly because of popularity.

        Args:
            histories: item ids, oldest first, one list a user: all those that are to be scored, or a large sample.
            catalog: holds all these items; with vectors.
            seed: of what is drawn.

        Raises:
            DataError: fewer than 50 histories hold two items, or the catalog has no vectors.
            UnknownItemError: an item is not in the catalog.
        """
        from recbase_hf.scoring.adapted import AdaptedScorer

        return AdaptedScorer(self, histories, catalog, seed=seed)

    # ---- recommending ------------------------------------------------------------------------------------------

    def recommend(
        self,
        history: Sequence[Any],
        k: int = 10,
        *,
        catalog: ItemCatalog,
        method: ScoreMethod = "catalog",
        alpha: float = 0.0,
        search: SearchMethod = "exact",
        num_beams: int | None = None,
        allowed: Sequence[Any] | None = None,
        exclude: Iterable[Any] = (),
        exclude_history: bool = True,
        mask: Any = None,
    ) -> Any:
        """The `k` items of the catalog with the highest scores.

        Args:
            history: as in `score`.
            k: how many.
            catalog: where to choose from.
            method: as in `score`.
            alpha: as in `score`.
            search: `exact` gives the order of `score` over the whole catalog, of which it skips what cannot be among
                the best; `beam` follows only the best prefixes from code to code.
            num_beams: of `beam`, how many prefixes a user; at least `k`, by default 200, or twice `k` if that is more.
            allowed: item ids that may come back, or one such list a user; by default all.
            exclude: item ids that must not come back, or one such list a user.
            exclude_history: whether the items of the history must not come back.
            mask: (items,) or (users, items) bool over the rows of the catalog, True where an item may come back.

        Returns:
            A list of `Recommendation`, or one a user: distinct items of the catalog, best first; equal scores
            (colliding semantic IDs) by the similarity of their texts to the history, then by item id.

        Raises:
            UnknownItemError: an item is not in the catalog.
            ValueError: fewer than `k` items remain, or an argument does not fit.
        """
        history = as_list(history)
        one_user = is_one_list(history)
        rows = [catalog.rows(ids) for ids in ([history] if one_user else history)]
        choice = ItemChoice(catalog, rows, allowed=allowed, exclude=exclude, exclude_history=exclude_history, mask=mask)
        beams = checked_beams(search, num_beams, k)
        engine = self.engine(catalog, method, alpha)
        found = engine.recommend([self.kept(part) for part in rows], k, choice, num_beams=beams)
        lists = [self.recommendations(catalog, *part) for part in found]
        return lists[0] if one_user else lists

    def recommendations(self, catalog: ItemCatalog, rows: np.ndarray, scores: np.ndarray) -> list[Recommendation]:
        """Catalog rows as people read them."""
        return [
            Recommendation(catalog.item_ids[row], catalog.titles[row], float(score))
            for row, score in zip(rows, scores, strict=True)
        ]

    # ---- tables ------------------------------------------------------------------------------------------------

    def score_table(
        self,
        table: Any,
        output: str | Path,
        *,
        catalog: ItemCatalog,
        method: ScoreMethod = "catalog",
        alpha: float = 0.0,
        rows_per_part: int = 4096,
    ) -> list[Path]:
        """Score a table of histories and candidates into Parquet shards; see `recbase_hf.scoring.table.score_table`."""
        from recbase_hf.scoring.table import score_table

        options: dict[str, Any] = {"method": method, "alpha": alpha, "rows_per_part": rows_per_part}
        return score_table(self, table, output, catalog=catalog, **options)

    # ---- for live use ------------------------------------------------------------------------------------------

    def session(self, history: Sequence[Any], *, catalog: ItemCatalog) -> RecBaseSession:
        """Keep one user's history encoded between requests.

        Args:
            history: item ids, oldest first; may be empty.
            catalog: of the items of this history, and of all that follow.
        """
        return RecBaseSession(self, catalog, history)

    def engine(self, catalog: ItemCatalog, method: ScoreMethod, alpha: float) -> Engine:
        """What scores and searches this catalog.

        Raises:
            FingerprintMismatchError: the catalog was made with another tokenizer.
            ValueError: the method is unknown or alpha is out of range.
        """
        require_same_fingerprint(tokenizer=self.tokenizer.fingerprint, catalog=catalog.fingerprint)
        options = {"method": checked_method(method), "alpha": checked_alpha(alpha)}
        return Engine(self.model, catalog, memory_budget=self.memory_budget, **options)  # type: ignore[arg-type]
