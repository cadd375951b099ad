"""Settings of training change how fast a step is, not what it computes; ten losses are frozen.

After a wanted change: UPDATE_GOLDEN=1 python -m pytest tests/unit/test_training_settings.py
"""

import json
import os
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from jobs.recipes import toy
from models.training.config import TrainingConfig
from models.training.loop import Trainer
from tests.model_fixtures.batches import SMALL, batch, objective

GOLDEN = Path(__file__).parents[1] / "golden" / "losses" / "toy.json"
ROWS = 64
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def trainer(training, model=SMALL, device="cpu"):
    return Trainer(objective(model), training, torch.device(device), learning_rate=1e-3, empty={})


def arrays(steps):
    return [{k: v.numpy() for k, v in batch(ROWS, seed=i).items()} for i in range(steps)]


def first_step(device, **changes):
    """The losses of a step, and all its gradients as one vector."""
    found = trainer(TrainingConfig(prefetch_batches=0, **changes), device=device)
    losses = found.train(arrays(1), seed=(1,)).losses
    parameters = list(found.objective.parameters())
    assert {p.dtype for p in parameters} == {torch.float32}
    return losses, torch.cat([p.grad.flatten().cpu() for p in parameters])


@pytest.mark.parametrize(
    ("device", "changes"),
    [
        ("cpu", {"precision": "bfloat16"}),
        pytest.param("cuda", {"precision": "bfloat16"}, marks=needs_gpu),
        pytest.param("cuda", {"tf32": True}, marks=needs_gpu),
    ],
)
def test_a_step_of_low_precision_is_near_that_of_float32(device, changes):
    """bfloat16 rounds to 8 bits, 0.4 %, and TF32 to 11; a loss is a mean of many roundings."""
    plain_losses, plain = first_step(device, tf32=False)
    losses, gradient = first_step(device, **changes)
    assert losses == pytest.approx(plain_losses, rel=1e-2)
    assert torch.nn.functional.cosine_similarity(gradient, plain, dim=0) > 0.995
    assert not torch.equal(gradient, plain), "the setting changed nothing"


def test_embeddings_of_low_precision_have_norm_one():
    found = trainer(TrainingConfig(precision="bfloat16")).embed(arrays(1)[0])
    for vectors_BE in found.values():
        assert vectors_BE.dtype == torch.float32
        torch.testing.assert_close(vectors_BE.norm(dim=1), torch.ones(ROWS))


@pytest.mark.skipif(
    not os.environ.get("DERM_TEST_COMPILE"), reason="a minute: DERM_TEST_COMPILE=1 runs it"
)
# torch.compile meets deprecated parts of torch, and looks at gradients of inner tensors.
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_step_equals_the_plain_one():
    plain_losses, plain = first_step("cpu")
    losses, gradient = first_step("cpu", compile=True)
    assert losses == pytest.approx(plain_losses, rel=1e-5)
    torch.testing.assert_close(gradient, plain, atol=1e-5, rtol=1e-5)


def test_first_losses_of_the_toy_recipe():
    """Equal to three digits on another CPU: Adam's first steps amplify the last bits."""
    sums = [0.0]
    toy_trainer = trainer(toy().training, toy().model)
    toy_trainer.train(arrays(10), seed=(1,), on_step=lambda s: sums.append(s.losses["total"]))
    losses = [after - before for before, after in pairwise(sums)]
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(json.dumps([round(x, 6) for x in losses], indent=2) + "\n")
    assert losses == pytest.approx(json.loads(GOLDEN.read_text()), rel=1e-3)
