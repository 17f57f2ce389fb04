"""recbase-hf: a foundation model for recommendation, from item text to exact zero-shot scores.

Importing the package is cheap; each name is loaded when it is first used.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING

from recbase_hf.version import __version__

_HOME_OF_NAME = {
    "CatalogLogitsProcessor": "scoring.generation",
    "ClVaeConfig": "auto",
    "ClVaeModel": "auto",
    "DataError": "errors",
    "FsqConfig": "auto",
    "FsqModel": "auto",
    "FingerprintMismatchError": "errors",
    "ItemCatalog": "catalog",
    "ItemTemplate": "text.template",
    "ProductQuantizerConfig": "auto",
    "ProductQuantizerModel": "auto",
    "Quantizer": "auto",
    "QuantizerTraining": "quantizers.training",
    "RecBaseScorer": "scoring.scorer",
    "RecBaseScoringPipeline": "auto",
    "RecBaseTokenizer": "auto",
    "Recommendation": "scoring.scorer",
    "ResidualKMeansConfig": "auto",
    "ResidualKMeansModel": "auto",
    "UnknownItemError": "errors",
    "catalog_generate": "scoring.generation",
    "extend_tokenizer": "finetuning.extension",
    "fit_quantizer": "quantizers.fit",
    "load_text_encoder": "text.encoder",
}

__all__ = ["__version__", *sorted(_HOME_OF_NAME)]

logging.getLogger(__name__).addHandler(logging.NullHandler())

if TYPE_CHECKING:
    from recbase_hf.auto import ClVaeConfig as ClVaeConfig
    from recbase_hf.auto import ClVaeModel as ClVaeModel
    from recbase_hf.auto import FsqConfig as FsqConfig
    from recbase_hf.auto import FsqModel as FsqModel
    from recbase_hf.auto import ProductQuantizerConfig as ProductQuantizerConfig
    from recbase_hf.auto import ProductQuantizerModel as ProductQuantizerModel
    from recbase_hf.auto import Quantizer as Quantizer
    from recbase_hf.auto import RecBaseScoringPipeline as RecBaseScoringPipeline
    from recbase_hf.auto import RecBaseTokenizer as RecBaseTokenizer
    from recbase_hf.auto import ResidualKMeansConfig as ResidualKMeansConfig
    from recbase_hf.auto import ResidualKMeansModel as ResidualKMeansModel
    from recbase_hf.catalog import ItemCatalog as ItemCatalog
    from recbase_hf.errors import DataError as DataError
    from recbase_hf.errors import FingerprintMismatchError as FingerprintMismatchError
    from recbase_hf.errors import UnknownItemError as UnknownItemError
    from recbase_hf.finetuning.extension import extend_tokenizer as extend_tokenizer
    from recbase_hf.quantizers.fit import fit_quantizer as fit_quantizer
    from recbase_hf.quantizers.training import QuantizerTraining as QuantizerTraining
    from recbase_hf.scoring.generation import CatalogLogitsProcessor as CatalogLogitsProcessor
    from recbase_hf.scoring.generation import catalog_generate as catalog_generate
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
