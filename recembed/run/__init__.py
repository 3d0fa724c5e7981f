"""Whole runs: train from a config, read a run back, evaluate, predict, export."""

from recembed.run.build import build_model
from recembed.run.data import RunData, open_data
from recembed.run.retrieval import RetrievalRunResult, train_retrieval
from recembed.run.retrieval_config import RetrievalConfig
from recembed.run.retrieval_saved import evaluate_retrieval, export_retrieval, is_retrieval_run
from recembed.run.saved import SavedRun, evaluate_run, export_run, load_run, predict_run
from recembed.run.train import RunResult, train

__all__ = [
    "RetrievalConfig",
    "RetrievalRunResult",
    "RunData",
    "RunResult",
    "SavedRun",
    "build_model",
    "evaluate_retrieval",
    "evaluate_run",
    "export_retrieval",
    "export_run",
    "is_retrieval_run",
    "load_run",
    "open_data",
    "predict_run",
    "train",
    "train_retrieval",
]
