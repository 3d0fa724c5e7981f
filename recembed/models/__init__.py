"""Batches → logits: one file per model, and the dictionary of their kinds."""

from recembed.models.base import CTRModel, EmbeddingPart, ModelConfig
from recembed.models.dcnv2 import Cross, DCNv2, DCNv2Config
from recembed.models.deepfm import DeepFM, DeepFMConfig
from recembed.models.dlrm import DLRM, DLRMConfig
from recembed.models.fm import FM, FMConfig
from recembed.models.logistic_regression import LogisticRegression, LogisticRegressionConfig
from recembed.models.multi_embedding import MultiEmbedding, MultiEmbeddingConfig
from recembed.models.wide_and_deep import WideAndDeep, WideAndDeepConfig

__all__ = [
    "DLRM",
    "FM",
    "MODELS",
    "CTRModel",
    "Cross",
    "DCNv2",
    "DCNv2Config",
    "DLRMConfig",
    "DeepFM",
    "DeepFMConfig",
    "EmbeddingPart",
    "FMConfig",
    "LogisticRegression",
    "LogisticRegressionConfig",
    "ModelConfig",
    "MultiEmbedding",
    "MultiEmbeddingConfig",
    "WideAndDeep",
    "WideAndDeepConfig",
]

MODELS: dict[str, type[ModelConfig]] = {
    "logistic_regression": LogisticRegressionConfig,
    "fm": FMConfig,
    "wide_and_deep": WideAndDeepConfig,
    "deepfm": DeepFMConfig,
    "dlrm": DLRMConfig,
    "dcnv2": DCNv2Config,
    "multi_embedding": MultiEmbeddingConfig,
}
