"""Registers our classes with transformers, so that its Auto classes and pipelines find them.

Import `RecBaseTokenizer` from here (or from `recbase_hf`), not from `recbase_hf.modeling`: importing this module is
what makes `AutoTokenizer`, `AutoModel` and `pipeline` know them.
"""

from __future__ import annotations

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, Qwen2Config
from transformers.pipelines import PIPELINE_REGISTRY

from recbase_hf.modeling.configuration_clvae import ClVaeConfig
from recbase_hf.modeling.configuration_fsq import FsqConfig
from recbase_hf.modeling.configuration_product import ProductQuantizerConfig
from recbase_hf.modeling.configuration_quantizer import QuantizerConfig
from recbase_hf.modeling.configuration_residual_kmeans import ResidualKMeansConfig
from recbase_hf.modeling.modeling_clvae import ClVaeModel
from recbase_hf.modeling.modeling_fsq import FsqModel
from recbase_hf.modeling.modeling_product import ProductQuantizerModel
from recbase_hf.modeling.modeling_quantizer import Quantizer
from recbase_hf.modeling.modeling_residual_kmeans import ResidualKMeansModel
from recbase_hf.modeling.pipeline_recbase import RecBaseScoringPipeline
from recbase_hf.modeling.quantizers import QUANTIZERS, new_quantizer, quantizer_config
from recbase_hf.modeling.tokenization_recbase import CollisionPolicy, RecBaseTokenizer

__all__ = [
    "ClVaeConfig",
    "ClVaeModel",
    "CollisionPolicy",
    "FsqConfig",
    "FsqModel",
    "ProductQuantizerConfig",
    "ProductQuantizerModel",
    "Quantizer",
    "QuantizerConfig",
    "RecBaseScoringPipeline",
    "RecBaseTokenizer",
    "ResidualKMeansConfig",
    "ResidualKMeansModel",
    "new_quantizer",
    "quantizer_config",
]


class _TokenizerMarkerConfig(Qwen2Config):
    """Records the tokenizer class under a name of its own: registering it for `Qwen2Config` would give every Qwen2
    checkpoint in the process our tokenizer."""

    model_type = "recbase_tokenizer_marker"


for model_type, (config_class, model_class) in QUANTIZERS.items():
    AutoConfig.register(model_type, config_class, exist_ok=True)
    AutoModel.register(config_class, model_class, exist_ok=True)
AutoTokenizer.register(_TokenizerMarkerConfig, tokenizer_class=RecBaseTokenizer, exist_ok=True)
PIPELINE_REGISTRY.register_pipeline(
    "recbase-scoring", pipeline_class=RecBaseScoringPipeline, pt_model=AutoModelForCausalLM, type="text"
)
