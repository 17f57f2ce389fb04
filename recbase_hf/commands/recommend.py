"""`recbase recommend`: the best items of a catalog for one history."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from recbase_hf.commands.command import Answer, Command
from recbase_hf.config import option

if TYPE_CHECKING:
    from recbase_hf.scoring.scorer import Recommendation

__all__ = ["COMMAND", "Recommend", "recommend"]


@dataclass(frozen=True)
class Recommend:
    """Recommend items of a catalog."""

    model: str = option(help="bundle: a folder or a Hub id")
    catalog: str = option(help="catalog folder, made by recbase build-catalog")
    adapter: str | None = option(None, help="adapter over it, made by recbase finetune: a folder or a Hub id")
    history: tuple[str, ...] = option((), help="item ids, oldest first")
    k: int = option(10, help="how many")
    method: str = option("catalog", help="score", choices=("catalog", "joint"))
    alpha: float = option(0.0, help="share of the score under an empty history that is taken off, 0 to 1")
    search: str = option("exact", help="how the best are found", choices=("exact", "beam"))
    num_beams: int | None = option(None, help="of the search by beams; default 200, or twice k if that is more")
    memory_budget: int = option(1 << 30, help="bytes for what goes through the model at a time, beside the weights")
    exclude: tuple[str, ...] = option((), help="item ids that must not come back, beside those of the history")


def recommend(options: Recommend) -> list[Recommendation]:
    """The items, best first; errors as `RecBaseScorer.recommend` has them."""
    from recbase_hf.catalog import ItemCatalog
    from recbase_hf.commands.score import load_scorer

    scorer = load_scorer(options.model, options.adapter, memory_budget=options.memory_budget)
    return scorer.recommend(
        options.history,
        options.k,
        catalog=ItemCatalog.from_pretrained(options.catalog, tokenizer=scorer.tokenizer),
        method=options.method,  # type: ignore[arg-type]
        alpha=options.alpha,
        search=options.search,  # type: ignore[arg-type]
        num_beams=options.num_beams,
        exclude=options.exclude,
    )


def run(options: Recommend) -> Answer:
    """Recommend, a line an item."""
    found = recommend(options)
    lines = [f"{item.score:9.3f}  {item.item_id}  {item.title}" for item in found]
    return Answer("\n".join(lines), {"items": [item._asdict() for item in found]})


COMMAND = Command("recommend", Recommend, run)
