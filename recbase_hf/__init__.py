"""recbase-hf: a foundation model for recommendation, from item text to exact zero-shot scores.

Importing the package is cheap; each name is loaded when it is first used.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING

from recbase_hf.version import __version__

_HOME_OF_NAME = {
    "ClVaeConfig": "auto",
    "ClVaeModel": "auto",
    "DataError": "errors",
    "FingerprintMismatchError": "errors",
    "ItemCatalog": "catalog",
    "ItemTemplate": "text.template",
    "RecBaseScorer": "scoring.scorer",
    "RecBaseScoringPipeline": "auto",
    "RecBaseTokenizer": "auto",
    "Recommendation": "scoring.scorer",
    "UnknownItemError": "errors",
    "load_text_encoder": "text.encoder",
}

__all__ = ["__version__", *sorted(_HOME_OF_NAME)]

logging.getLogger(__name__).addHandler(logging.NullHandler())

if TYPE_CHECKING:
    from recbase_hf.auto import ClVaeConfig as ClVaeConfig
    from recbase_hf.auto import ClVaeModel as ClVaeModel
    from recbase_hf.auto import RecBaseScoringPipeline as RecBaseScoringPipeline
    from recbase_hf.auto import RecBaseTokenizer as RecBaseTokenizer
    from recbase_hf.catalog import ItemCatalog as ItemCatalog
    from recbase_hf.errors import DataError as DataError
    from recbase_hf.errors import FingerprintMismatchError as FingerprintMismatchError
    from recbase_hf.errors import UnknownItemError as UnknownItemError
    from recbase_hf.scoring.scorer import RecBaseScorer as RecBaseScorer
    from recbase_hf.scoring.scorer import Recommendation as Recommendation
    from recbase_hf.text.encoder import load_text_encoder as load_text_encoder
    from recbase_hf.text.template import ItemTemplate as ItemTemplate


def __getattr__(name: str) -> object:
    if name in _HOME_OF_NAME:
        return getattr(importlib.import_module(f"recbase_hf.{_HOME_OF_NAME[name]}"), name)
    raise AttributeError(f"module 'recbase_hf' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF_NAME})
