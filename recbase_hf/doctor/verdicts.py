"""What the figures mean: one verdict for each check, with the fix in plain words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from recbase_hf.doctor.figures import CodeFigures, Group, JointFigures, TableFigures
from recbase_hf.doctor.tables import NO_TEXT, NO_VECTOR

__all__ = ["SEVERITIES", "Finding", "Severity", "Thresholds", "judge"]

Severity = Literal["ok", "not measured", "warning", "fault"]
SEVERITIES: tuple[Severity, ...] = ("ok", "not measured", "warning", "fault")
"""From the best to the worst."""

ALL_TABLES = "all tables"


@dataclass(frozen=True)
class Thresholds:
    """Beyond which figures a warning or a fault is found. Shares are in [0, 1].

    Attributes:
        empty_warning: items without text, share. One is one too many, since all of them are one item to the model.
        empty_fault: from here on it is a broken export, not an oversight.
        duplicates_warning: items that share their text. Repeated texts cannot be told apart by any tokenizer; a few are
            editions and sizes of one product, many mean that the text columns are the wrong ones.
        repeated_vectors_warning: different texts with the vector of another. Texts that agree up to the encoder's
            length limit do this, rarely, and texts in a script it does not know.
        repeated_vectors_fault: from here on the embedding run broke.
        collisions_warning: different texts that share their semantic ID. Well-fitted quantizers stay below.
        collisions_fault: from here on the ranking of a tenth of the items is a draw.
        bucket_warning: items under the most mixed semantic ID, share of the table.
        bucket_fault: from here on one answer in a hundred is a guess within one bucket.
        bucket_min_texts: different texts up to which a bucket is not judged: small tables have small shares.
        use_warning: perplexity of a level over the smaller of codebook and different items (of those with one text and
            one ID only one counts). Codes drawn at random reach about 0.6 where there are as many items as codes, and 1
            where there are many more.
        use_fault: from here on the level says next to nothing.
        min_items_for_use: different items from which on the use of codes is judged.
        bunching_times: items in the lowest 8 code numbers, times of what an even use gives.
        bunching_share: and their share, so that chance in a small table is not taken for it.
        information_warning: what the first code says about the data set, as a share of all there is to say and less
            what chance gives. Beyond a half, first codes of one data set are mostly unknown in another.
        information_fault: from here on the first code is a label of the data set.
        drift_warning: items that are reconstructed worse than all but 1 % of those the quantizer was fitted on.
        drift_fault: from here on the table is another domain to the quantizer.
        cosine_warning: mean reconstruction cosine.
        cosine_fault: from here on the codes say nothing about the texts; unrelated vectors have cosine 0.
        recall_warning: neighbor recall at 10.
        recall_fault: from here on like items do not get like codes, on which all transfer rests.
    """

    empty_warning: float = 0.0
    empty_fault: float = 0.01
    duplicates_warning: float = 0.05
    repeated_vectors_warning: float = 0.01
    repeated_vectors_fault: float = 0.1
    collisions_warning: float = 0.03
    collisions_fault: float = 0.1
    bucket_warning: float = 0.001
    bucket_fault: float = 0.01
    bucket_min_texts: int = 5
    use_warning: float = 0.3
    use_fault: float = 0.05
    min_items_for_use: int = 20
    bunching_times: float = 5.0
    bunching_share: float = 0.1
    information_warning: float = 0.5
    information_fault: float = 0.9
    drift_warning: float = 0.1
    drift_fault: float = 0.3
    cosine_warning: float = 0.3
    cosine_fault: float = 0.1
    recall_warning: float = 0.2
    recall_fault: float = 0.05


@dataclass(frozen=True)
class Finding:
    """One verdict.

    Attributes:
        severity: ok, not measured, warning or fault.
        subject: the table, or "all tables".
        check: what was looked at.
        message: what was found, or why it was not measured.
        fix: what to do; empty where there is nothing to do.
    """

    severity: Severity
    subject: str
    check: str
    message: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.subject}: {self.message}" + (f" → {self.fix}" if self.fix else "")


def judge(
    tables: Iterable[TableFigures], joint: JointFigures | None, *, codebook_size: int | None, thresholds: Thresholds
) -> list[Finding]:
    """The verdicts on figures, table by table, then on all tables together."""
    findings = [finding for table in tables for finding in _judge_table(table, codebook_size, thresholds)]
    return [*findings, _level_one(joint, thresholds)]


def _judge_table(table: TableFigures, codebook_size: int | None, limits: Thresholds) -> Iterator[Finding]:
    yield from _left_out(table)
    yield from _texts(table, limits)
    yield _vectors(table, limits)
    if table.codes is None or codebook_size is None:
        yield Finding(
            "not measured", table.name, "semantic IDs",
            "no codes, so neither collisions nor code use nor reconstruction were measured",
            "give a tokenizer, a catalog or a table of codes",
        )  # fmt: skip
        return
    yield _collisions(table, table.codes, limits)
    yield _largest_bucket(table, table.codes, limits)
    yield _code_use(table, table.codes, codebook_size, limits)
    yield _bunching(table, table.codes, limits)
    yield from _reconstruction(table, limits)


# ---- texts and vectors -------------------------------------------------------------------------------------------


def _left_out(table: TableFigures) -> Iterator[Finding]:
    for reason, count in table.left_out.items():
        yield Finding(
            "not measured", table.name, "left out",
            f"{count:,} items have {reason} and are left out; {table.num_items:,} were examined",
            "make vectors for them too" if reason == NO_VECTOR else "",
        )  # fmt: skip


def _texts(table: TableFigures, limits: Thresholds) -> Iterator[Finding]:
    texts = table.texts
    if texts is None:
        message = "no texts, so neither empty nor repeated texts nor collisions of texts were measured"
        yield Finding("not measured", table.name, "texts", message, "give the item table with its text columns")
        return
    empty = texts.num_empty + table.left_out.get(NO_TEXT, 0)
    share = empty / (table.num_items + sum(table.left_out.values()))
    first = f", the first is {texts.empty_examples[0].item_id!r}" if texts.num_empty else ""
    yield Finding(
        _above(share, limits.empty_warning, limits.empty_fault), table.name, "empty texts",
        f"{empty:,} items ({_percent(share)}) have no text{first}" if empty else "every item has a text",
        "fill their text columns in, or leave these items out" if empty else "",
    )  # fmt: skip
    found = texts.duplicates
    severity = _above(found.share, limits.duplicates_warning)
    yield Finding(
        severity, table.name, "repeated texts",
        f"{found.num_repeated:,} items ({_percent(found.share)}) have the text of another item; "
        f"{found.num_texts:,} different texts"
        + (f", the most frequent {texts.largest_groups[0].num_items} times" if texts.largest_groups else ""),
        "add the columns that tell these items apart to the item text (--item-fields), or merge them into one item"
        if severity != "ok" else "",
    )  # fmt: skip


def _vectors(table: TableFigures, limits: Thresholds) -> Finding:
    found = table.repeated_vectors
    if found is None:
        message = "no sentence vectors" if table.texts else "no sentence vectors with their texts"
        return Finding(
            "not measured", table.name, "vectors",
            f"{message}, so repeated vectors were not measured", "give a tokenizer (--model) or --vectors",
        )  # fmt: skip
    severity = _above(found.share, limits.repeated_vectors_warning, limits.repeated_vectors_fault)
    return Finding(
        severity, table.name, "vectors",
        f"{found.num_colliding:,} of {found.num_texts:,} different texts ({_percent(found.share)}) have the vector of "
        "another text",
        "encode the texts again: the run broke, or the encoder cuts the texts before they differ" if severity != "ok"
        else "",
    )  # fmt: skip


# ---- semantic IDs ------------------------------------------------------------------------------------------------


def _collisions(table: TableFigures, codes: CodeFigures, limits: Thresholds) -> Finding:
    items, texts = codes.collisions, codes.text_collisions
    shared = (
        f"{items.num_sharing:,} items share an ID: {items.num_ids:,} IDs for {items.num_items:,} items, duplicate rate "
        f"{_percent(items.duplicate_rate)}"
    )
    if texts is None:
        return Finding("not measured", table.name, "collisions", f"{shared}; of how many texts was not measured")
    severity = _above(texts.share, limits.collisions_warning, limits.collisions_fault)
    return Finding(
        severity, table.name, "collisions",
        f"{_percent(texts.share)} of {texts.num_texts:,} different texts share their ID with another text ({shared})",
        "raise codebook_size or num_levels, fit the tokenizer on this domain too, or let it tell them apart "
        "(--collisions reassign, or collisions='reassign')"
        if severity != "ok" else "",
    )  # fmt: skip


def _largest_bucket(table: TableFigures, codes: CodeFigures, limits: Thresholds) -> Finding:
    check = "largest bucket"
    if codes.text_collisions is None:
        return Finding("not measured", table.name, check, "no texts, so different texts under one ID were not counted")
    bucket = codes.most_mixed_bucket
    if bucket is None:
        return Finding("ok", table.name, check, "no two different texts share an ID")
    severity: Severity = "ok"
    if (bucket.num_texts or 0) > limits.bucket_min_texts:
        severity = _above(bucket.share, limits.bucket_warning, limits.bucket_fault)
    fix = _bucket_fix(bucket) if severity != "ok" else ""
    return Finding(severity, table.name, check, _bucket_message(bucket), fix)


def _bucket_message(bucket: Group) -> str:
    titles = ", ".join(f"'{_shortened(example.title)}'" for example in bucket.examples[:3])
    where = f" in consecutive rows from {bucket.examples[0].row} on" if bucket.is_one_stretch else ""
    return (
        f"{bucket.num_items:,} items ({_percent(bucket.share)}) with {bucket.num_texts:,} different texts share the ID "
        f"{bucket.codes}{where}, such as {titles}"
    )


def _bucket_fix(bucket: Group) -> str:
    if bucket.is_one_stretch and bucket.num_items > 20:
        return "rows in one stretch look like an embedding run that broke off: encode these texts again"
    return "look at the examples; if they differ, fit the tokenizer on this domain or raise num_levels"


def _code_use(table: TableFigures, codes: CodeFigures, codebook_size: int, limits: Thresholds) -> Finding:
    check = "code use"
    if codes.num_distinct < limits.min_items_for_use:
        return Finding("not measured", table.name, check, _too_few(codes, limits))
    reachable = min(codebook_size, codes.num_distinct)
    levels = codes.describing_levels
    shares = [level.perplexity / reachable for level in levels]
    used = ", ".join(f"{level.used:,}" for level in levels)
    even = ", ".join(f"{level.perplexity:,.1f}" for level in levels)
    figures = f"levels use {used} of {codebook_size:,} codes, perplexity {even}"
    if codes.last_level_counts:
        figures += "; the last level only counts the items that share the codes before it"
    single = [number for number, level in enumerate(levels, 1) if level.used == 1 and codebook_size > 1]
    if codes.collisions.num_ids == 1:
        message = f"all {table.num_items:,} items have one and the same ID"
        return Finding("fault", table.name, check, message, "see whether the vectors differ at all; if so, train again")
    if single:
        message = f"level {_listed(single)} uses one code only, so it says nothing; {figures}"
        return Finding("fault", table.name, check, message, "train again, with more items or a higher entropy_weight")
    severity = _below(min(shares), limits.use_warning, limits.use_fault)
    worst = shares.index(min(shares)) + 1
    return Finding(
        severity, table.name, check,
        f"level {worst} uses its codes least evenly ({_percent(min(shares))} of what {reachable:,} codes could give); "
        f"{figures}",
        "fit the tokenizer on this domain too, on centered vectors; else raise entropy_weight or lower codebook_size"
        if severity != "ok" else "",
    )  # fmt: skip


def _bunching(table: TableFigures, codes: CodeFigures, limits: Thresholds) -> Finding:
    check = "bunching"
    if codes.num_distinct < limits.min_items_for_use:
        return Finding("not measured", table.name, check, _too_few(codes, limits))
    expected = codes.levels[0].first_codes_expected
    if expected * limits.bunching_times >= 1.0:
        message = "the codebooks are too small to tell whether items bunch in the lowest codes"
        return Finding("not measured", table.name, check, message)
    number, level = max(enumerate(codes.describing_levels, 1), key=lambda numbered: numbered[1].first_codes_share)
    bunched = level.first_codes_share > max(expected * limits.bunching_times, limits.bunching_share)
    return Finding(
        "warning" if bunched else "ok", table.name, check,
        f"{_percent(level.first_codes_share)} of the items have one of the lowest 8 codes on level {number} "
        f"({_percent(expected)} expected)",
        "the mark of colliding items that were spread over codes by number, not by nearness: make the codes again "
        "without balanced re-assignment" if bunched else "",
    )  # fmt: skip


def _too_few(codes: CodeFigures, limits: Thresholds) -> str:
    needed = f"{limits.min_items_for_use} are needed"
    return f"{codes.num_distinct} different items are too few to judge the use of codes ({needed})"


# ---- reconstruction ----------------------------------------------------------------------------------------------


def _reconstruction(table: TableFigures, limits: Thresholds) -> Iterator[Finding]:
    found = table.reconstruction
    if found is None:
        yield Finding(
            "not measured", table.name, "reconstruction",
            "no centered vectors with decoded codes, so neither cosine nor drift nor neighbor recall were measured",
            "give the tokenizer that made the codes (--model)",
        )  # fmt: skip
        return
    severity = _below(found.mean_cosine, limits.cosine_warning, limits.cosine_fault)
    first, median = found.cosine_percentiles[1], found.cosine_percentiles[50]
    yield Finding(
        severity, table.name, "reconstruction",
        f"mean cosine {found.mean_cosine:.3f} of vectors and decoded codes (1st percentile {first:.3f}, median "
        f"{median:.3f})",
        "fit the tokenizer on this domain too, train it longer, or raise num_levels" if severity != "ok" else "",
    )  # fmt: skip
    yield _drift(table, found.drift, limits)
    yield _neighbors(table, found.neighbor_recall, limits)


def _drift(table: TableFigures, drift: float | None, limits: Thresholds) -> Finding:
    if drift is None:
        message = "the tokenizer does not say how well it reconstructs the items it was fitted on"
        return Finding("not measured", table.name, "drift", message, "train it with a release that records it")
    severity = _above(drift, limits.drift_warning, limits.drift_fault)
    return Finding(
        severity, table.name, "drift",
        f"{_percent(drift)} of the items are reconstructed worse than 99 % of the fitted items (1 % expected)",
        "fit the tokenizer on this domain too" if severity != "ok" else "",
    )  # fmt: skip


def _neighbors(table: TableFigures, recall: float | None, limits: Thresholds) -> Finding:
    check = "neighbor recall"
    repeated = table.repeated_vectors
    if recall is None:
        return Finding("not measured", table.name, check, f"{table.num_items} items are too few: all are neighbors")
    if repeated is not None and repeated.share > limits.repeated_vectors_fault:
        message = "too many different texts have one vector to say which items are near each other"
        return Finding("not measured", table.name, check, message, "encode the texts again")
    severity = _below(recall, limits.recall_warning, limits.recall_fault)
    return Finding(
        severity, table.name, check,
        f"{_percent(recall)} of an item's 10 nearest by text are among its 10 nearest by semantic ID",
        "fit the tokenizer on this domain too, or raise num_levels or codebook_size" if severity != "ok" else "",
    )  # fmt: skip


# ---- all tables --------------------------------------------------------------------------------------------------


def _level_one(joint: JointFigures | None, limits: Thresholds) -> Finding:
    check = "level 1 and data set"
    if joint is None:
        message = "what the first code says about the data set needs two tables with codes"
        return Finding("not measured", ALL_TABLES, check, message)
    found = joint.level_one
    figures = (
        f"the first code tells {found.bits:.2f} of the {found.dataset_bits:.2f} bits of which data set an item is from "
        f"({_percent(found.share)}; chance gives {_percent(found.chance_share)})"
    )
    if found.chance_share > limits.information_warning:
        message = f"{figures}: too few items to tell it from chance"
        return Finding("not measured", ALL_TABLES, check, message, "examine larger tables")
    severity = _above(found.share_above_chance, limits.information_warning, limits.information_fault)
    return Finding(
        severity, ALL_TABLES, check, figures,
        "center the vectors of each data set on its own mean and drop lead sentences from the item template; first "
        "codes of unseen data are unknown to the model otherwise" if severity != "ok" else "",
    )  # fmt: skip


# ---- words -------------------------------------------------------------------------------------------------------


def _above(value: float, warning: float, fault: float = float("inf")) -> Severity:
    return "fault" if value > fault else "warning" if value > warning else "ok"


def _below(value: float, warning: float, fault: float) -> Severity:
    return "fault" if value < fault else "warning" if value < warning else "ok"


def _percent(share: float) -> str:
    """Three digits at most, but never a rounded nothing or a rounded all.

    >>> [_percent(share) for share in (0.0, 0.00004, 0.0078, 0.653, 0.9999, 1.0)]
    ['0 %', '< 0.1 %', '0.8 %', '65.3 %', '> 99.9 %', '100 %']
    """
    if share in (0.0, 1.0):
        return f"{share:.0%}".replace("%", " %")
    if share < 0.001:
        return "< 0.1 %"
    return "> 99.9 %" if share > 0.999 else f"{100 * share:.1f} %"


def _shortened(title: str, length: int = 40) -> str:
    return title if len(title) <= length else title[: length - 1].rstrip() + "…"


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
