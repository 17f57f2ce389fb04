"""`recbase calibrate`: fits on training domains how scores are corrected, and stores that in the bundle."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import numpy as np

from recbase_hf.bundle import CALIBRATION_FILE, load_bundle, located, require_folder_if_path
from recbase_hf.commands.command import Answer, Command
from recbase_hf.commands.options import data_of_training, resolve_folder, vectors_for
from recbase_hf.config import option, require_positive
from recbase_hf.data.domain import Domain, ItemVectors, load_domain
from recbase_hf.evaluation.protocols.leave_last_out import leave_last_out
from recbase_hf.files import atomic_folder
from recbase_hf.scoring.calibration import Calibration

if TYPE_CHECKING:
    from recbase_hf.scoring.calibration_fit import ScoreComponents
    from recbase_hf.scoring.scorer import RecBaseScorer

__all__ = ["COMMAND", "Calibrate", "calibrate"]

logger = logging.getLogger(__name__)

IMAGE = 1_000_003
"""A mirror image that no training comes to."""

NUM_NEGATIVES = 4
MAX_HISTORY = 20

_COLUMNS = ("joint", "catalog", "text similarity", "calibrated")


@dataclass(frozen=True)
class Calibrate:
    """Choose score, alpha and text weight by the last items of users of training domains, never of the one at test.

    The domains are shown in a mirror image of their catalogs, so that the weights suit domains new to the model.
    """

    model: str = option(help="bundle: a folder, which gets the calibration, or a Hub id")
    data: tuple[str, ...] = option(
        help="folders with items.* and interactions.* that the model was trained on, or python-api/packages"
    )
    output: str | None = option(None, help="folder for a copy of the bundle, which gets the calibration instead")
    vectors: str | None = option(
        None, help="name of vectors that lie beside the tables (NAME_f16.npy), instead of encoding"
    )
    unordered_events: str = option(
        "error",
        help="what to do with events that lack their place in an otherwise ordered history",
        choices=("error", "drop"),
    )
    trust_remote_code: bool = option(False, help="let the encoder's repository run its own code (NV-Embed-v2 needs it)")
    max_users: int = option(1000, help="users of each data set, drawn at random")
    seed: int = option(0, help="of users and negatives")

    def __post_init__(self) -> None:
        require_positive(self, "max_users")


def calibrate(options: Calibrate) -> tuple[Calibration, Path]:
    """Fit and write; returns the calibration and the bundle that has it.

    Raises:
        ValueError: a data set is named twice or has nobody to evaluate, or there is no folder to write to.
        DataError: a data set cannot be used.
    """
    from recbase_hf.scoring.calibration_fit import fit_mix
    from recbase_hf.scoring.scorer import RecBaseScorer

    _require_distinct(options.data)
    bundle = _bundle_folder(options)
    model, tokenizer = load_bundle(bundle)  # not the scorer's own way: a broken calibration is to be replaced
    scorer = RecBaseScorer(model, tokenizer)
    source = vectors_for(tokenizer, options.vectors, trust_remote_code=options.trust_remote_code)
    components: dict[str, ScoreComponents] = {}
    fitted_on: dict[str, str] = {}
    items_of: dict[str, str] = {}
    for data in options.data:
        domain = _domain(data, source, options)
        if domain.hash in fitted_on.values():
            other = next(name for name, found in fitted_on.items() if found == domain.hash)
            raise ValueError(f"{data} holds the same tables as {other}; name each data set once")
        logger.info("%s: %s users", domain.name, f"{len(domain.histories):,}")
        components[domain.name] = _components(scorer, domain, options)
        fitted_on[domain.name], items_of[domain.name] = domain.hash, domain.items_hash
    _warn_of_others(fitted_on, data_of_training(bundle))
    mix = fit_mix(components)
    calibration = Calibration(
        **mix._asdict(),
        fitted_on=fitted_on,
        items_of=items_of,
        fingerprint=tokenizer.fingerprint,
        figures={name: part.figures(mix) for name, part in components.items()},
        settings={
            "protocol": "leave-last-out",
            "num_negatives": NUM_NEGATIVES,
            "max_history": MAX_HISTORY,
            "max_users": options.max_users,
            "seed": options.seed,
            "mirror_image": IMAGE,
        },
    )
    return calibration, _write(calibration, bundle, options.output)


def _require_distinct(folders: Sequence[str]) -> None:
    names = [Path(data).resolve().name for data in folders]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"--data names {', '.join(twice)} twice; name each data set once, or rename one of the folders"
        )


def _bundle_folder(options: Calibrate) -> Path:
    """The bundle as a local folder, and whether the calibration has somewhere to go."""
    found = located(options.model)
    folder = Path(found)
    if options.output is None and found != options.model:
        raise ValueError(
            f"{options.model} comes with the package, where nothing is written; give --output FOLDER for a calibrated "
            "copy of it"
        )
    if options.output is not None and not _is_same(folder, options.output) and _holds_something(options.output):
        raise ValueError(f"{options.output} is there already; choose another --output, or delete it")
    if folder.is_dir():
        return folder
    require_folder_if_path(options.model)
    if options.output is None:
        raise ValueError(f"{options.model} is no local folder; give --output FOLDER for a calibrated copy of it")
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(options.model))


def _is_same(folder: Path, output: str) -> bool:
    return folder.resolve() == Path(output).resolve()


def _holds_something(output: str) -> bool:
    path = Path(output)
    return path.exists() and (not path.is_dir() or any(path.iterdir()))


def _domain(data: str, source: ItemVectors, options: Calibrate) -> Domain:
    unordered_events = cast(Literal["error", "drop"], options.unordered_events)
    return load_domain(resolve_folder(data), source, unordered_events=unordered_events, seed=options.seed)


def _components(scorer: RecBaseScorer, domain: Domain, options: Calibrate) -> ScoreComponents:
    from recbase_hf.catalog import ItemCatalog
    from recbase_hf.scoring.calibration_fit import score_components

    catalog = ItemCatalog.from_items(domain.items, tokenizer=scorer.tokenizer, vectors=domain.vectors)
    # Its own codes the model may know by heart; in a mirror image it has to do what it does in a domain new to it.
    catalog = catalog.mirrored(IMAGE, tokenizer=scorer.tokenizer)
    try:
        task = leave_last_out(
            domain.histories,
            len(catalog),
            num_negatives=NUM_NEGATIVES,
            max_history=MAX_HISTORY,
            max_users=options.max_users,
            seed=options.seed,
        )
    except ValueError as error:
        raise ValueError(f"{domain.name}: {error}") from None
    return score_components(scorer, catalog, task.histories, task.candidates_of(0, len(task)), task.labels)


def _warn_of_others(fitted_on: dict[str, str], trained_on: dict[str, str]) -> None:
    others = [name for name, found in fitted_on.items() if found not in trained_on.values()]
    if others and trained_on:
        logger.warning(
            "the model was not trained on %s: what is fitted there is no longer zero-shot there, and recbase evaluate "
            "refuses to report it",
            ", ".join(others),
        )
    elif others:
        logger.warning("the bundle does not say what it was trained on; %s may be new to it", ", ".join(others))


def _write(calibration: Calibration, bundle: Path, output: str | None) -> Path:
    if output is None or _is_same(bundle, output):
        calibration.save(bundle)
        return bundle
    with atomic_folder(output) as temporary:
        shutil.copytree(bundle, temporary, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".git", ".cache"))
        calibration.save(temporary)
    return Path(output)


def _table(calibration: Calibration) -> str:
    """GAUC of the components and of the mix, a row for each domain and one for the mean."""
    rows = {name: [figures[column] for column in _COLUMNS] for name, figures in calibration.figures.items()}
    rows["mean"] = np.mean(list(rows.values()), axis=0).tolist()
    width = max(map(len, (*rows, "GAUC")))
    lines = [f"{'GAUC':{width}}" + "".join(f"  {column:>15}" for column in _COLUMNS)]
    lines += [f"{name:{width}}" + "".join(f"  {value:15.4f}" for value in values) for name, values in rows.items()]
    return "\n".join(lines)


def run(options: Calibrate) -> Answer:
    """Fit, write, and show the table."""
    calibration, bundle = calibrate(options)
    text = (
        f"{_table(calibration)}\n\n{calibration.method} score, alpha {calibration.alpha:g}, text weight "
        f"{calibration.text_weight:g}: {bundle / CALIBRATION_FILE}"
    )
    return Answer(text, {"file": str(bundle / CALIBRATION_FILE), **asdict(calibration)})


COMMAND = Command("calibrate", Calibrate, run)
