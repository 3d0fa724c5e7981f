"""Tree codes: hand-made trees, exact splits, the way of missing numbers, and that codes tell leaves apart."""

from typing import Any

import numpy as np
import pytest

from recembed.errors import ConfigError
from recembed.items.tree_codes import Split, TreeCodes


def data(missing: bool = False) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    x = draw.integers(0, 6, (300, 4)).astype(np.float64) / 3
    y = (x[:, 0] + x[:, 1] * x[:, 2] > 1).astype(int)
    if missing:
        x[draw.random(x.shape) < 0.1] = np.nan
    return x, y


def ensembles() -> dict[str, Any]:
    from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier

    found: dict[str, Any] = {
        "forest": RandomForestClassifier(5, max_depth=4, random_state=0),
        "histogram": HistGradientBoostingClassifier(max_iter=5, random_state=0),
        "boosting": GradientBoostingClassifier(n_estimators=5, random_state=0),
    }
    return found


def leaves(name: str, model: Any, x: np.ndarray) -> np.ndarray:
    if name == "histogram":
        return np.stack(
            [p[0].predict(x, np.zeros((0, 8), np.uint32), np.zeros(0, np.uint32), 1) for p in model._predictors], 1
        )
    if name == "lightgbm":
        return np.asarray(model.predict(x, pred_leaf=True))
    return np.asarray(model.apply(x)).reshape(len(x), -1)


def test_worked_by_hand() -> None:
    codes = TreeCodes(
        (((Split(0, 1.0, True, True)), Split(1, 2.0, False, False)), (Split(0, 1.0, True, True),)), np.float64
    )
    table = np.array([[1.0, 2.0], [1.5, 1.0], [np.nan, np.nan]])
    assert codes.vectors(table).tolist() == [[0, 1], [1, 0], [0, 1]]  # two distinct splits
    assert codes.tokens(table).tolist() == [[[0, 1], [0, -1]], [[1, 0], [1, -1]], [[0, 1], [0, -1]]]


@pytest.mark.parametrize("name", ["forest", "histogram", "boosting"])
def test_equal_codes_mean_equal_leaves(name: str) -> None:
    x, y = data(missing=name != "boosting")
    model = ensembles()[name].fit(x, y)
    check(name, model, x)


def test_lightgbm() -> None:
    lightgbm = pytest.importorskip("lightgbm")
    x, y = data(missing=True)
    check("lightgbm", lightgbm.LGBMClassifier(n_estimators=5, verbose=-1, n_jobs=1, min_child_samples=5).fit(x, y), x)


def test_xgboost() -> None:
    xgboost = pytest.importorskip("xgboost")
    x, y = data(missing=True)
    check("xgboost", xgboost.XGBClassifier(n_estimators=5, n_jobs=1, max_depth=4).fit(x, y), x)


def check(name: str, model: Any, x: np.ndarray) -> None:
    codes = TreeCodes.of(model)
    tokens, own = codes.tokens(x), leaves(name, model, x)
    assert tokens.shape[1] == own.shape[1] and codes.vectors(x).shape == (len(x), len(codes.splits))
    for tree in range(own.shape[1]):
        by_code: dict[bytes, set[float]] = {}
        for row, leaf in zip(tokens[:, tree], own[:, tree], strict=True):
            by_code.setdefault(row.tobytes(), set()).add(float(leaf))
        assert all(len(found) == 1 for found in by_code.values())
        assert len({float(leaf) for leaf in own[:, tree]}) > 1
    assert np.array_equal(codes.vectors(x[3:4]), codes.vectors(x)[3:4])


def test_bits_rise_with_the_number() -> None:
    x, y = data()
    codes = TreeCodes.of(ensembles()["forest"].fit(x, y))
    steps = np.zeros((50, 4))
    steps[:, 1] = np.linspace(-1, 3, 50)
    assert (np.diff(codes.vectors(steps), axis=0) >= 0).all() and codes.vectors(steps).max() == 1


def test_models_of_another_sort() -> None:
    from sklearn.linear_model import LogisticRegression

    with pytest.raises(ConfigError, match="LogisticRegression holds no trees"):
        TreeCodes.of(LogisticRegression())
    with pytest.raises(ConfigError, match="dict is no tree ensemble that is known here"):
        TreeCodes.of({})
