"""DeepCAE: the penalty against autograd, its estimate, and what it does to vectors."""

import numpy as np
import pytest
import torch

from recembed.errors import DataError
from recembed.items.deep_cae import DeepCAE, DeepCAEConfig, train_deep_cae


def test_the_penalty_is_the_norm_of_the_whole_encoders_jacobian() -> None:
    torch.manual_seed(0)
    model = DeepCAE(5, DeepCAEConfig(embedding_dim=3, hidden=(4, 6)))
    x = torch.randn(7, 5)
    wanted = torch.stack([torch.func.jacrev(model.encode)(row).square().sum() for row in x])
    assert torch.allclose(model.exact_penalty(x), wanted, atol=1e-6)


def test_hutchinsons_mean_is_the_exact_penalty() -> None:
    torch.manual_seed(0)
    model = DeepCAE(5, DeepCAEConfig(embedding_dim=4, hidden=(6,)))
    x = torch.randn(20, 5)
    signs = torch.randint(0, 2, (400, 20, 4)).float() * 2 - 1
    assert model.estimated_penalty(x, signs).mean().item() == pytest.approx(
        model.exact_penalty(x).mean().item(), rel=0.02
    )


def test_an_encoder_near_zero_is_linear() -> None:
    model = DeepCAE(3, DeepCAEConfig(embedding_dim=2, hidden=(4,)))
    with torch.no_grad():
        for layer in model.encoder:
            layer.bias.zero_()  # type: ignore[union-attr,operator]
    first, second = (layer.weight for layer in model.encoder)
    product = second @ first  # type: ignore[operator]
    found = model.exact_penalty(torch.full((2, 3), 1e-4))
    assert torch.allclose(found, product.square().sum().expand(2), rtol=1e-4)


def table() -> np.ndarray:
    draw = np.random.default_rng(0)
    return (draw.normal(size=(300, 2)) @ draw.normal(size=(2, 6)) + 5).astype(np.float32)


@pytest.mark.parametrize("penalty", ["exact", "hutchinson"])
def test_more_contraction_stretches_less(penalty: str) -> None:
    def stretch(contraction: float) -> float:
        settings = {"embedding_dim": 2, "hidden": (8,), "contraction": contraction, "penalty": penalty}
        model = train_deep_cae(table(), DeepCAEConfig.model_validate(settings | {"epochs": 30, "learning_rate": 0.01}))
        vectors = model.vectors(table())
        assert vectors.shape == (300, 2) and np.isfinite(vectors).all()
        assert np.allclose(model.vectors(table()[:1]), vectors[:1], atol=1e-6)
        x = (torch.from_numpy(table()) - model.get_buffer("mean")) / model.get_buffer("std")
        return model.exact_penalty(x).mean().item()

    assert stretch(3.0) < 0.7 * stretch(0.0)


def test_missing_numbers_are_told() -> None:
    broken = table()
    broken[3, 1] = np.nan
    with pytest.raises(DataError, match=r"row 3, column 1 is missing or infinite \(1 such cells\); fill them"):
        train_deep_cae(broken)
