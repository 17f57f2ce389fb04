"""Calibrated scores: what is likely for everybody counts less, and the items' texts have a say.

How much of either is fitted on training domains (`recbase_hf.scoring.calibration_fit`) and stored in the bundle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recbase_hf.bundle import CALIBRATION_FILE, bundle_file, hash_of_weights
from recbase_hf.errors import FingerprintMismatchError, LeakageError
from recbase_hf.files import read_json, write_json
from recbase_hf.fingerprints import require_same_fingerprint
from recbase_hf.scoring.method import ScoreMethod, checked_alpha, checked_method
from recbase_hf.text.similarity import log_sum_exp_similarity

if TYPE_CHECKING:
    from recbase_hf.catalog import ItemCatalog
    from recbase_hf.scoring.scorer import RecBaseScorer

__all__ = ["Calibration", "require_not_fitted_on", "text_similarity"]

FORMAT_VERSION = 1

_ROWS = 1 << 16
"""Vectors that are gathered at a time: 100 MB of width 384."""


@dataclass(frozen=True)
class Calibration:
    """How calibrated scores are made: `score(method, alpha) + text_weight * text_similarity`.

    Attributes:
        method: `catalog` or `joint`.
        alpha: share of the score under an empty history that is taken off, 0 to 1.
        text_weight: nats for one unit of text similarity, at least 0. The similarity is of the items' own texts, so
            that items which share a semantic ID are told apart.
        fitted_on: name to hash (of both tables) of the data sets that it was fitted on.
        items_of: name to hash of their item tables.
        fingerprint: of the tokenizer of the bundle that it was fitted for.
        figures: for each data set, by name, what the fit reached: JSON values.
        settings: how it was fitted: JSON values.

    Raises:
        ValueError: the method is unknown, or alpha or the weight is out of range.
    """

    method: ScoreMethod
    alpha: float
    text_weight: float
    fitted_on: dict[str, str]
    items_of: dict[str, str]
    fingerprint: str
    figures: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checked_method(self.method)
        checked_alpha(self.alpha)
        if not 0 <= self.text_weight < float("inf"):
            raise ValueError(f"text_weight is {self.text_weight}; it must be a number of at least 0")

    def facts(self) -> dict[str, Any]:
        """What a receipt says of it."""
        return {name: getattr(self, name) for name in ("method", "alpha", "text_weight", "fitted_on", "items_of")}

    # ---- in a bundle -------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write `calibration.json` into a bundle, in the place of an earlier one.

        Raises:
            FileNotFoundError: the folder is not a bundle.
            FingerprintMismatchError: it was fitted for a bundle with another tokenizer.
        """
        require_same_fingerprint(tokenizer=_tokenizer_of(folder), calibration=self.fingerprint)
        content = {"format_version": FORMAT_VERSION, "weights": hash_of_weights(folder), **asdict(self)}
        write_json(Path(folder) / CALIBRATION_FILE, content)

    @classmethod
    def load(cls, name_or_path: str | Path, **hub: Any) -> Calibration | None:
        """The calibration of a bundle, in a folder or on the Hub; None if it has none.

        Args:
            **hub: `revision`, `cache_dir`, `token`, `local_files_only`.

        Raises:
            FileNotFoundError: there is a calibration, but no bundle around it.
            FingerprintMismatchError: it was fitted for a bundle with another tokenizer, or other weights.
            ValueError: the file is damaged, or was written by a newer version.
        """
        path = bundle_file(name_or_path, CALIBRATION_FILE, **hub)
        if path is None:
            return None
        try:
            content = read_json(path)
            calibration = cls(**_checked(content))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{path} cannot be used ({error}); restore it, delete it, or fit it again with recbase calibrate"
            ) from error
        require_same_fingerprint(tokenizer=_tokenizer_of(name_or_path, **hub), calibration=calibration.fingerprint)
        if content["weights"] != hash_of_weights(name_or_path, **hub):
            raise FingerprintMismatchError(
                f"{path} was fitted for other weights; fit it again with recbase calibrate, or delete it"
            )
        return calibration

    # ---- scoring -----------------------------------------------------------------------------------------------

    def scores(
        self,
        scorer: RecBaseScorer,
        histories: Sequence[np.ndarray],
        candidates: Sequence[np.ndarray],
        catalog: ItemCatalog,
    ) -> list[np.ndarray]:
        """Calibrated scores: for each user (candidates,) of the dtype of the scorer's own.

        Args:
            histories: (n,) catalog rows a user; texts are compared to as many of the newest as the model reads.
            candidates: (n,) catalog rows a user.

        Raises:
            DataError: the texts count, but the catalog has no vectors.
            FingerprintMismatchError: it was fitted for another tokenizer than the scorer's.
        """
        require_same_fingerprint(tokenizer=scorer.tokenizer.fingerprint, calibration=self.fingerprint)
        if not self.text_weight:
            return scorer.score_rows(histories, candidates, catalog=catalog, method=self.method, alpha=self.alpha)
        vectors = catalog.centered_vectors
        scores = scorer.score_rows(histories, candidates, catalog=catalog, method=self.method, alpha=self.alpha)
        return [
            part + self.text_weight * text_similarity(vectors, scorer.kept(history), rows).astype(part.dtype)
            for part, history, rows in zip(scores, histories, candidates, strict=True)
        ]


def text_similarity(vectors: np.ndarray, history: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Log-sum-exp, over one user's history, of 5 times the cosine with each candidate.

    Args:
        vectors: (items, width) float32, centered, of unit length.
        history: (n,) catalog rows.
        candidates: (candidates,) catalog rows.

    Returns:
        (candidates,) float32; 0 without a history.

    >>> text_similarity(np.eye(2, dtype=np.float32), np.array([0]), np.array([0, 1])).tolist()
    [5.0, 0.0]
    """
    past, candidates = vectors[np.asarray(history, dtype=np.int64)].T, np.asarray(candidates, dtype=np.int64)
    parts = (candidates[start : start + _ROWS] for start in range(0, len(candidates), _ROWS))
    similarities = [log_sum_exp_similarity(vectors[part] @ past) for part in parts]
    return np.concatenate([np.empty(0, dtype=np.float32), *similarities])


def require_not_fitted_on(calibration: Calibration, dataset_hash: str, items_hash: str, name: str) -> None:
    """Raise if calibrated figures on this data set would flatter.

    Args:
        dataset_hash: of both tables, the `hash` of a `Domain`.
        items_hash: of the item table, its `items_hash`.
        name: what the message calls the data set.

    Raises:
        LeakageError: a `ValueError`; the calibration was fitted on this very data set, or on its item table.
    """
    same_data = sorted(other for other, found in calibration.fitted_on.items() if found == dataset_hash)
    same_items = sorted(other for other, found in calibration.items_of.items() if found == items_hash)
    if not same_data and not same_items:
        return
    what = f"this very data set (as {same_data[0]})" if same_data else f"its item table (that of {same_items[0]})"
    raise LeakageError(
        f"{name}: the calibration of this bundle was fitted on {what}, so that calibrated figures on it would flatter; "
        "evaluate on another data set, or fit it without this one: recbase calibrate --model BUNDLE --data FOLDER..."
    )


def _checked(content: Any) -> dict[str, Any]:
    """The fields of a calibration, out of what `save` wrote."""
    names = [part.name for part in fields(Calibration)]
    missing = [name for name in ("format_version", "weights", *names) if name not in content]
    if missing:
        raise ValueError(f"{', '.join(missing)} missing")
    if content["format_version"] > FORMAT_VERSION:
        raise ValueError("written by a newer recbase-hf; upgrade with: pip install -U recbase-hf")
    return {name: content[name] for name in names}


def _tokenizer_of(name_or_path: str | Path, **hub: Any) -> str:
    """The fingerprint that a bundle records."""
    config = bundle_file(name_or_path, "config.json", **hub)
    recorded = None if config is None else read_json(config).get("recbase")
    if not recorded:
        raise FileNotFoundError(f"{name_or_path} is not a RecBase bundle: no config.json with a `recbase` block")
    return str(recorded["fingerprint"])
