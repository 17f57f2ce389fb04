"""`recbase recommend`: the best items of a catalog for one history."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from recbase_hf.commands.command import Answer, Command
from recbase_hf.config import option

if TYPE_CHECKING:
    from recbase_hf.catalog import ItemCatalog
    from recbase_hf.scoring.scorer import RecBaseScorer, Recommendation

__all__ = ["COMMAND", "Recommend", "recommend"]


@dataclass(frozen=True)
class Recommend:
    """Recommend items of a catalog."""

    model: str = option(help="bundle: a folder or a Hub id")
    catalog: str = option(help="catalog folder, made by recbase build-catalog")
    adapter: str | None = option(None, help="adapter over it, made by recbase finetune: a folder or a Hub id")
    history: tuple[str, ...] = option((), help="item ids, oldest first")
    k: int = option(10, help="how many")
    method: str = option(
        "catalog",
        help="score; calibrated, where the bundle has a calibration, adds what the texts say, and is the better one on "
        "a domain that the model does not know",
        choices=("catalog", "joint", "calibrated"),
    )
    alpha: float = option(0.0, help="share of the score under an empty history that is taken off, 0 to 1")
    search: str = option("exact", help="how the best are found", choices=("exact", "beam"))
    num_beams: int | None = option(None, help="of the search by beams; default 200, or twice k if that is more")
    memory_budget: int = option(1 << 30, help="bytes for what goes through the model at a time, beside the weights")
    exclude: tuple[str, ...] = option((), help="item ids that must not come back, beside those of the history")

    def __post_init__(self) -> None:
        if self.method == "calibrated" and (self.alpha or self.search != "exact" or self.num_beams):
            raise ValueError("method calibrated has its own alpha and no beams; leave --alpha and --search out")


def recommend(options: Recommend) -> list[Recommendation]:
    """The items, best first; errors as `RecBaseScorer.recommend` has them."""
    from recbase_hf.catalog import ItemCatalog
    from recbase_hf.commands.score import load_scorer

    scorer = load_scorer(options.model, options.adapter, memory_budget=options.memory_budget)
    catalog = ItemCatalog.from_pretrained(options.catalog, tokenizer=scorer.tokenizer)
    if options.method == "calibrated":
        return _by_calibration(scorer, catalog, options)
    return scorer.recommend(
        options.history,
        options.k,
        catalog=catalog,
        method=options.method,  # type: ignore[arg-type]
        alpha=options.alpha,
        search=options.search,  # type: ignore[arg-type]
        num_beams=options.num_beams,
        exclude=options.exclude,
    )


def _by_calibration(scorer: RecBaseScorer, catalog: ItemCatalog, options: Recommend) -> list[Recommendation]:
    """The best of all items; there is no search for this score."""
    import numpy as np

    history = catalog.rows(options.history)
    (scores,) = scorer.score_calibrated_rows([history], [np.arange(len(catalog))], catalog=catalog)
    left = np.setdiff1d(np.arange(len(catalog)), [*history, *catalog.rows(options.exclude)])
    if not 1 <= options.k <= len(left):
        raise ValueError(f"k is {options.k}, but {len(left)} items can be recommended; give a number from 1 to that")
    best = left[np.argsort(-scores[left], kind="stable")[: options.k]]
    return scorer.recommendations(catalog, best, scores[best])


def run(options: Recommend) -> Answer:
    """Recommend, a line an item."""
    found = recommend(options)
    lines = [f"{item.score:9.3f}  {item.item_id}  {item.title}" for item in found]
    return Answer("\n".join(lines), {"items": [item._asdict() for item in found]})


COMMAND = Command("recommend", Recommend, run)
