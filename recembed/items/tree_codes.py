"""Codes of a trained tree ensemble: which side of every split a row lies on (T2V, T2T).

Li et al., Tree-Regularized Tabular Embeddings, 2024. T2V has one bit per distinct split of the ensemble, T2T a token per tree
with a bit per inner node in level order. Differs from the paper: splits are exact instead of rounded to two decimals; a
row on a split lies on the side that the library gives it (XGBoost: right, others: left), and a missing number goes where
the tree learned to send it. So equal codes always mean the same leaf of every tree.
Fit the ensemble on training rows alone: its splits know the labels.
Axes: ``N`` rows, ``W`` columns, ``T`` trees, ``M`` inner nodes of the largest tree, ``C`` distinct splits.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from recembed.errors import ConfigError

__all__ = ["Split", "TreeCodes"]


class Split(NamedTuple):
    """One split.

    Attributes:
        column: Which number it reads.
        threshold: Where it stands.
        equal_left: Whether a number equal to the threshold goes left.
        missing_left: Whether a missing number goes left.
    """

    column: int
    threshold: float
    equal_left: bool
    missing_left: bool


@dataclass(frozen=True, eq=False)
class TreeCodes:
    """The splits of an ensemble.

    Attributes:
        trees: For each tree, its inner nodes in level order.
        dtype: Type in which the library compares numbers.
    """

    trees: tuple[tuple[Split, ...], ...]
    dtype: type[np.floating[Any]]

    @classmethod
    def of(cls, model: Any) -> "TreeCodes":
        """Read the splits of a fitted ensemble of scikit-learn, LightGBM or XGBoost.

        Raises:
            ConfigError: the model is of another sort, or has splits on categories.
        """
        package = type(model).__module__.partition(".")[0]
        readers = {"sklearn": _sklearn, "lightgbm": _lightgbm, "xgboost": _xgboost}
        if package not in readers:
            raise ConfigError(
                f"{type(model).__name__} is no tree ensemble that is known here; expected one of scikit-learn "
                "(forests, gradient boosting), LightGBM or XGBoost"
            )
        trees, dtype = readers[package](model)
        return cls(tuple(trees), dtype)

    @property
    def splits(self) -> tuple[Split, ...]:
        """The distinct splits, sorted: the columns of ``vectors``."""
        return tuple(sorted({split for tree in self.trees for split in tree}))

    def vectors(self, table: np.ndarray) -> np.ndarray:
        """Return T2V, float32 ``[N, C]``: 1 where the row lies right of the split."""
        return self._right(table, self.splits).astype(np.float32)

    def tokens(self, table: np.ndarray) -> np.ndarray:
        """Return T2T, int8 ``[N, T, M]``: 1 right, 0 left, and -1 where a tree has fewer nodes."""
        most = max((len(tree) for tree in self.trees), default=0)
        found = np.full((len(table), len(self.trees), most), -1, np.int8)
        for place, tree in enumerate(self.trees):
            found[:, place, : len(tree)] = self._right(table, tree)
        return found

    def _right(self, table: np.ndarray, splits: tuple[Split, ...]) -> np.ndarray:
        values = np.asarray(table, self.dtype)[:, [split.column for split in splits]]  # [N, C]
        thresholds = np.array([split.threshold for split in splits])
        equal = np.array([split.equal_left for split in splits], bool)
        missing = np.array([not split.missing_left for split in splits], bool)
        right: np.ndarray = np.where(equal, values > thresholds, values >= thresholds)
        return np.where(np.isnan(values), missing, right)


_Read = tuple[list[tuple[Split, ...]], type[np.floating[Any]]]


def _level_order(root: Any, split: Any, children: Any) -> Iterator[Split]:
    """Yield the inner nodes below ``root``, level by level."""
    level = [root]
    while level:
        inner = [node for node in level if split(node) is not None]
        yield from (split(node) for node in inner)
        level = [child for node in inner for child in children(node)]


def _sklearn(model: Any) -> _Read:
    if hasattr(model, "_predictors"):  # histogram gradient boosting
        nodes = [predictor.nodes for iteration in model._predictors for predictor in iteration]
        if any(own["is_categorical"].any() for own in nodes):
            raise ConfigError("the ensemble splits on categories; give it numbers or one-hot columns")
        return [_histogram_tree(own) for own in nodes], np.float64
    if not hasattr(model, "estimators_"):
        if not hasattr(model, "tree_"):
            raise ConfigError(f"{type(model).__name__} holds no trees; expected a fitted ensemble of trees")
        return [_plain_tree(model.tree_)], np.float32
    return [_plain_tree(tree.tree_) for tree in np.ravel(model.estimators_)], np.float32


def _plain_tree(tree: Any) -> tuple[Split, ...]:
    def split(node: int) -> Split | None:
        if tree.children_left[node] < 0:
            return None
        left = bool(tree.missing_go_to_left[node])
        return Split(int(tree.feature[node]), float(tree.threshold[node]), True, left)

    return tuple(_level_order(0, split, lambda node: (tree.children_left[node], tree.children_right[node])))


def _histogram_tree(nodes: np.ndarray) -> tuple[Split, ...]:
    def split(node: int) -> Split | None:
        row = nodes[node]
        if row["is_leaf"]:
            return None
        return Split(int(row["feature_idx"]), float(row["num_threshold"]), True, bool(row["missing_go_to_left"]))

    return tuple(_level_order(0, split, lambda node: (nodes[node]["left"], nodes[node]["right"])))


def _lightgbm(model: Any) -> _Read:
    booster = getattr(model, "booster_", model)

    def split(node: Mapping[str, Any]) -> Split | None:
        if "split_feature" not in node:
            return None
        if node["decision_type"] != "<=":
            raise ConfigError("the ensemble splits on categories; give it numbers or one-hot columns")
        if node["missing_type"] == "Zero":
            raise ConfigError("the ensemble reads zeros as missing; train it with zero_as_missing=false")
        threshold = float(node["threshold"])
        # where training saw no missing number, LightGBM reads one as 0
        left = bool(node["default_left"]) if node["missing_type"] == "NaN" else threshold >= 0
        return Split(int(node["split_feature"]), threshold, True, left)

    trees = [tree["tree_structure"] for tree in booster.dump_model()["tree_info"]]
    found = [tuple(_level_order(t, split, lambda node: (node["left_child"], node["right_child"]))) for t in trees]
    return found, np.float64


def _xgboost(model: Any) -> _Read:
    booster = model.get_booster() if hasattr(model, "get_booster") else model
    names = {name: place for place, name in enumerate(booster.feature_names or [])}

    def split(node: Mapping[str, Any]) -> Split | None:
        if "split" not in node:
            return None
        column = names[node["split"]] if names else int(node["split"].removeprefix("f"))
        left = node["missing"] == node["yes"]
        return Split(column, float(np.float32(node["split_condition"])), False, left)

    trees = [json.loads(tree) for tree in booster.get_dump(dump_format="json")]
    return [tuple(_level_order(tree, split, _xgboost_children)) for tree in trees], np.float32


def _xgboost_children(node: Mapping[str, Any]) -> list[Any]:
    by_id = {child["nodeid"]: child for child in node["children"]}
    return [by_id[node["yes"]], by_id[node["no"]]]
