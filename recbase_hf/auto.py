"""Registers our classes with transformers, so that its Auto classes and pipelines find them.

Import `RecBaseTokenizer` from here (or from `recbase_hf`), not from `recbase_hf.modeling`: importing this module is
what makes `AutoTokenizer`, `AutoModel` and `pipeline` know them.
"""

from __future__ import annotations

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, Qwen2Config
from transformers.pipelines import PIPELINE_REGISTRY

from recbase_hf.modeling.configuration_clvae import ClVaeConfig
from recbase_hf.modeling.modeling_clvae import ClVaeModel
from recbase_hf.modeling.pipeline_recbase import RecBaseScoringPipeline
from recbase_hf.modeling.tokenization_recbase import RecBaseTokenizer

__all__ = ["ClVaeConfig", "ClVaeModel", "RecBaseScoringPipeline", "RecBaseTokenizer"]


class _TokenizerMarkerConfig(Qwen2Config):
    """Records the tokenizer class under a name of its own: registering it for `Qwen2Config` would give every Qwen2
    checkpoint in the process our tokenizer."""

    model_type = "recbase_tokenizer_marker"


AutoConfig.register("clvae", ClVaeConfig, exist_ok=True)
AutoModel.register(ClVaeConfig, ClVaeModel, exist_ok=True)
AutoTokenizer.register(_TokenizerMarkerConfig, tokenizer_class=RecBaseTokenizer, exist_ok=True)
PIPELINE_REGISTRY.register_pipeline(
    "recbase-scoring", pipeline_class=RecBaseScoringPipeline, pt_model=AutoModelForCausalLM, type="text"
)
