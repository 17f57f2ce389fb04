"""How the fields of an item become one text: an optional lead sentence, then one field per line."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from recbase_hf.errors import DataError

__all__ = ["ItemTemplate", "require_texts"]

VERSION = 1
MAX_VALUE_LENGTH = 2_000


@dataclass(frozen=True)
class ItemTemplate:
    """The rule that writes the text of an item; saved with a model, since other texts give other vectors.

    The lead sentence comes first, then one field per line as `Name: value`. Empty fields (None, NaN, blank, empty
    list) are left out, lists are joined with `", "`, HTML entities are decoded, runs of white space become one space,
    and each value is cut at 2,000 characters. An item whose fields are all empty has the text `""`, without the lead.

    Args:
        fields: the columns to write, in this order. None takes the column `text` alone and bare if there is one,
            otherwise every column of strings or of lists of strings but `item_id`, in table order.
        lead: a sentence before the fields, such as `"A movie."`.
        version: the rule book; only version 1 exists.

    Raises:
        ValueError: an unknown version, or `fields` that name nothing or are a bare string.

    >>> template = ItemTemplate(fields=("title", "release_year", "genres"), lead="Describe a movie:")
    >>> print(template.render({"title": "Tom &amp; Viv", "release_year": 1994.0, "genres": ["Drama", "Romance"]}))
    Describe a movie:
    Title: Tom & Viv
    Release year: 1994
    Genres: Drama, Romance
    """

    fields: tuple[str, ...] | None = None
    lead: str | None = None
    version: int = VERSION

    def __post_init__(self) -> None:
        if self.version != VERSION:
            raise ValueError(
                f"item template version {self.version!r} is unknown (known: {VERSION}); "
                "it was made by another release of recbase-hf: install that release or a newer one"
            )
        if isinstance(self.fields, str):
            raise ValueError(f"fields must be a sequence of column names; write fields=({self.fields!r},)")
        if self.fields is not None:
            object.__setattr__(self, "fields", tuple(self.fields))
            if not self.fields:
                raise ValueError("fields names no column, so every text would be empty; name one, or give None")

    def render(self, row: Mapping[str, Any]) -> str:
        """The text of one item, `""` if all its fields are empty.

        Raises:
            DataError: `row` lacks a column named in `fields`, or holds a value that is not text, number or list.
        """
        bare = self.fields is None and "text" in row
        lines = []
        for name in self._choose(row):
            if self.fields is None and not _is_text(row[name]):
                continue
            value = _clean(name, row[name])[:MAX_VALUE_LENGTH].rstrip()
            if value:
                lines.append(value if bare else f"{_label(name)}: {value}")
        if lines and self.lead:
            lines.insert(0, self.lead)
        return "\n".join(lines)

    def render_all(self, columns: Any) -> list[str]:
        """The texts of a whole table, one per row, equal to `render` of each row.

        Args:
            columns: a `datasets.Dataset`, a `pyarrow.Table`, or a mapping from column name to a sequence of values.

        Raises:
            DataError: as in `render`, or columns of different lengths.

        >>> ItemTemplate().render_all({"item_id": ["a", "b"], "title": ["Heat", None], "year": [1995, 1996]})
        ['Title: Heat', '']
        """
        if hasattr(columns, "with_format"):
            columns = columns.with_format("arrow")[:]  # honors selections and decodes no images
        if isinstance(columns, pa.Table):
            values = {name: columns.column(name).to_pylist() for name in self._choose_typed(columns.schema)}
            rows = columns.num_rows
        else:
            values = {name: columns[name] for name in self._choose(columns.keys())}
            rows = _common_length(values)
        if not values:
            return [""] * rows
        return [self.render(dict(zip(values, row, strict=True))) for row in zip(*values.values(), strict=True)]

    def to_dict(self) -> dict[str, Any]:
        """A dictionary that JSON can hold and `from_dict` reads back."""
        return {**asdict(self), "fields": None if self.fields is None else list(self.fields)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> ItemTemplate:
        """The template that `to_dict` wrote.

        Raises:
            ValueError: an unknown version or an unknown key.

        >>> ItemTemplate.from_dict(ItemTemplate(fields=("title",)).to_dict())
        ItemTemplate(fields=('title',), lead=None, version=1)
        """
        unknown = sorted(set(content) - set(cls.__dataclass_fields__))
        # A later version may well have keys of its own: then the version is the better thing to name.
        if unknown and content.get("version", VERSION) == VERSION:
            known = ", ".join(cls.__dataclass_fields__)
            raise ValueError(f"item template has unknown keys {unknown}; remove or rename them (known: {known})")
        return cls(**{key: value for key, value in content.items() if key not in unknown})

    def _choose(self, columns: Iterable[str]) -> list[str]:
        present = list(columns)
        if self.fields is None:
            return ["text"] if "text" in present else [name for name in present if name != "item_id"]
        missing = [name for name in self.fields if name not in present]
        if missing:
            raise DataError(
                f"the item template names the field {missing[0]!r}, but the table has only the columns {present}; "
                "name other fields (--item-fields, or fields=...) or add the column"
            )
        return list(self.fields)

    def _choose_typed(self, schema: pa.Schema) -> list[str]:
        """As `_choose`, but leaves out by type what `render` would leave out by value (and slowly)."""
        names = self._choose(schema.names)
        return names if self.fields else [name for name in names if _is_text_type(schema.field(name).type)]


def require_texts(texts: Sequence[str], item_ids: Sequence[str], place: str = "") -> None:
    """Raise unless every item has a text: the items without one would all be the same item to the model.

    Raises:
        DataError: says how many have none, and names the first by row and id.
    """
    empty = [row for row, text in enumerate(texts) if not text.strip()]
    if empty:
        raise DataError(
            f"{place}{len(empty)} of {len(texts)} items have no text, the first in row {empty[0] + 1} (item_id "
            f"{item_ids[empty[0]]!r}); fill its text columns in, or leave the item out"
        )


def _label(name: str) -> str:
    words = name.replace("_", " ").strip()
    return words[:1].upper() + words[1:]


def _is_text(value: Any) -> bool:
    if isinstance(value, (list, tuple, np.ndarray)):
        return all(element is None or isinstance(element, str) for element in value)
    return isinstance(value, str)


def _is_text_type(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text_type(kind.value_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _is_text_type(kind.value_type)
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _clean(name: str, value: Any) -> str:
    """One value as one line of text, `""` if it is missing."""
    if isinstance(value, str):
        return " ".join(html.unescape(value).split())
    if isinstance(value, (list, tuple, np.ndarray)):
        return ", ".join(filter(None, (_clean(name, element) for element in value)))
    if isinstance(value, (Mapping, bytes)):
        raise DataError(
            f"the field {name!r} holds a value of type {type(value).__name__}, which has no plain text; "
            "leave the field out or turn it into columns of text, numbers or lists"
        )
    if _is_missing(value):
        return ""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _is_missing(value: Any) -> bool:
    if value is None:
        return True
    try:
        return bool(value != value)
    except TypeError:  # pandas.NA refuses to say whether it differs from itself
        return True


def _common_length(columns: Mapping[str, Sequence[Any]]) -> int:
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"the columns differ in length: {lengths}; give one value per item in each")
    return next(iter(lengths.values()), 0)
