"""Retrieval: vectors of users and items trained so that each user's items rank above all others."""

from recembed.retrieval.config import RetrievalEarlyStopping, RetrievalTraining
from recembed.retrieval.encoder import Encoder
from recembed.retrieval.holdout import hold_out
from recembed.retrieval.losses import (
    BPR,
    LOSSES,
    CosineContrastive,
    InBatchSoftmax,
    Negatives,
    RetrievalLoss,
    SampledSoftmax,
)
from recembed.retrieval.result import RetrievalResult
from recembed.retrieval.samplers import SAMPLERS, Hard, NegativeSampler, Popularity, SamplerConfig, Uniform
from recembed.retrieval.trainer import RetrievalTrainer, encoder_vectors

__all__ = [
    "BPR",
    "LOSSES",
    "SAMPLERS",
    "CosineContrastive",
    "Encoder",
    "Hard",
    "InBatchSoftmax",
    "NegativeSampler",
    "Negatives",
    "Popularity",
    "RetrievalEarlyStopping",
    "RetrievalLoss",
    "RetrievalResult",
    "RetrievalTrainer",
    "RetrievalTraining",
    "SampledSoftmax",
    "SamplerConfig",
    "Uniform",
    "encoder_vectors",
    "hold_out",
]
