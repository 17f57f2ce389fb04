"""Small zero-shot evaluations during training, on data sets that are not trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from recbase_hf.data.domain import ItemVectors, load_domain
from recbase_hf.errors import LeakageError
from recbase_hf.evaluation.metrics import gauc
from recbase_hf.evaluation.protocols import leave_last_out
from recbase_hf.evaluation.task import CandidateTask

if TYPE_CHECKING:
    from recbase_hf.auto import RecBaseTokenizer
    from recbase_hf.catalog import ItemCatalog

__all__ = ["Probe", "as_language_model", "load_probes", "measure_probes"]

USERS, NEGATIVES = 200, 4
METHODS: tuple[Literal["joint", "catalog"], ...] = ("joint", "catalog")


class Probe:
    """Users of one data set whose last item is to be found among a few others.

    Attributes:
        name: of the data set.
    """

    def __init__(self, name: str, tokenizer: RecBaseTokenizer, catalog: ItemCatalog, task: CandidateTask) -> None:
        self.name = name
        self._tokenizer, self._catalog, self._task = tokenizer, catalog, task

    def __len__(self) -> int:
        """Users."""
        return len(self._task)

    def measure(self, model: Any) -> dict[str, float]:
        """GAUC of the scores `joint` and `catalog`, as `probe_gauc_joint/NAME` and `probe_gauc_catalog/NAME`.

        Args:
            model: a `Qwen2ForCausalLM`, whose attention is another afterwards.
        """
        import numpy as np

        from recbase_hf.scoring.scorer import RecBaseScorer

        task, found = self._task, {}
        scorer = RecBaseScorer(model, self._tokenizer)
        for method in METHODS:
            scores = scorer.score_rows(
                task.histories, task.candidates_of(0, len(task)), catalog=self._catalog, method=method
            )
            value = gauc(task.labels, np.concatenate(scores), task.user_of_row).value
            found[f"probe_gauc_{method}/{self.name}"] = float(value)
        return found


def load_probes(
    folders: Sequence[str | Path],
    tokenizer: RecBaseTokenizer,
    source: ItemVectors,
    *,
    trained_on: dict[str, str] | None = None,
    seed: int = 0,
) -> list[Probe]:
    """Read data sets and draw up to 200 users of each.

    Args:
        folders: with `items.*` and `interactions.*`.
        tokenizer: of the model that is trained.
        source: where the items' vectors come from.
        trained_on: name and hash of the data sets that are trained on.
        seed: of users and negatives.

    Raises:
        DataError: a table cannot be used; the message names file, column and row.
        LeakageError: a data set is trained on, by its content.
        ValueError: no user of a data set can be evaluated, or two folders have the same name.
    """
    from recbase_hf.catalog import ItemCatalog

    probes: list[Probe] = []
    for folder in folders:
        domain = load_domain(folder, source)
        same = [name for name, content in (trained_on or {}).items() if content == domain.hash]
        if same:
            raise LeakageError(
                f"probe_data {folder} is the data set {same[0]}, which is trained on; probe one that is held out"
            )
        if domain.name in [probe.name for probe in probes]:
            raise ValueError(f"two folders of probe_data have the same name ({domain.name}); rename one")
        catalog = ItemCatalog.from_items(domain.items, tokenizer=tokenizer, vectors=domain.vectors)
        try:
            task = leave_last_out(
                domain.histories, len(domain.items), num_negatives=NEGATIVES, max_users=USERS, seed=seed
            )
        except ValueError as error:
            raise ValueError(f"probe_data {folder}: {error}") from error
        probes.append(Probe(domain.name, tokenizer, catalog, task))
    return probes


def measure_probes(probes: Sequence[Probe], model: Any) -> dict[str, float]:
    """The figures of all probes; the model is as before afterwards."""
    found: dict[str, float] = {}
    with as_language_model(model):
        for probe in probes:
            found |= probe.measure(model)
    return found


@contextmanager
def as_language_model(model: Any) -> Iterator[None]:
    """Within the block a model that is being trained can be used as any other: own forward, not compiled, evaluating.

    Mode, forward and attention are restored.
    """
    import torch

    forwards = {name: model.__dict__.pop(name) for name in ("forward", "_original_forward") if name in model.__dict__}
    attention, was_training = model.config._attn_implementation, model.training
    model.eval()
    try:
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        model.__dict__.update(forwards)
        model.set_attn_implementation(attention)
        model.train(was_training)
