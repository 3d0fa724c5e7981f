"""Methods on a device that is only pretended: their tensors never meet those of the CPU."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
METHODS = ("full", "hashed", "multiplexed, 4 probes", "tensor train", "lightgcn")
PRETENDED = """
import sys
import torch
from tests.pretend_device import DEVICE, pretending
from tests.embedding.fixtures import batch
from tests.embedding.test_contract import build, objective
settings = {"features": {"history": {"pooling": "none"}}, "l2": 0.1, "numeric": "linear"}
for case in sys.argv[1:]:
    vectors = []
    for device in (torch.device("cpu"), DEVICE):
        with pretending():
            embedding = build(case, device=device, settings=settings)
            for step in range(2):
                torch.manual_seed(step)
                loss = objective(embedding, batch(32, embedding.key_features, seed=step).to(device))
                added = embedding.take_auxiliary_loss()
                (loss if added is None else loss + added).backward()
            for table in embedding.all_tables().values():
                table.settle(embedding.store)
            rows = batch(16, embedding.key_features, seed=5)
            live = embedding.eval()(rows.to(device)).concat().cpu()
            torch.testing.assert_close(embedding.compact()(rows).concat(), live, rtol=0, atol=1e-6)
            vectors.append(live)
    torch.testing.assert_close(*vectors, rtol=1e-4, atol=1e-5, msg=lambda text: f"{case}: {text}")
print("all")
"""


@pytest.mark.slow
def test_methods_train_settle_and_are_compacted_on_another_device() -> None:
    words = [sys.executable, "-W", "ignore", "-c", PRETENDED, *METHODS]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("all"), done.stderr[-3000:]
