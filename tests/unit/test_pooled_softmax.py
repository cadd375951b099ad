"""The softmax in blocks: equal to the plain one, and nothing as large as queries x pool is kept."""

import math

import pytest
import torch

from models.nn import pooled
from models.nn.sampled_softmax import NO_USER, Pool, Positives, SampledSoftmax

D = 8


def sides(rows: int, size: int, *, everything: bool = False) -> tuple[Positives, Pool]:
    random = torch.Generator().manual_seed(5)
    ids = torch.randint(0, 1 if everything else 40, (rows + size,), generator=random)
    users = torch.randint(0, 9, (rows + size,), generator=random)
    users[rows + size // 2 :] = NO_USER

    def vectors(count: int) -> torch.Tensor:
        return torch.randn(count, D, generator=random).requires_grad_()

    positives = Positives(
        query_RD=vectors(rows),
        item_RD=vectors(rows),
        item_id_R=ids[:rows],
        user_id_R=users[:rows].clamp(min=0),
        log_q_R=torch.randn(rows, generator=random),
    )
    pool = Pool(
        item_PD=vectors(size),
        item_id_P=ids[rows:],
        user_id_P=users[rows:],
        log_q_P=torch.randn(size, generator=random),
    )
    return positives, pool


def gradients(softmax: SampledSoftmax, positives: Positives, pool: Pool) -> list[torch.Tensor]:
    loss_R = softmax(positives, pool)
    weight_R = torch.linspace(0.5, 2, len(loss_R))
    wanted = [positives.query_RD, positives.item_RD, pool.item_PD, softmax.log_scale]
    return [loss_R, *torch.autograd.grad((weight_R * loss_R).sum(), wanted)]


@pytest.mark.parametrize(("rows", "size"), [(1, 1), (13, 50), (30, 7)])
def test_blocks_equal_the_whole(rows, size, monkeypatch):
    monkeypatch.setattr(pooled, "_BLOCK_ROWS", 4)
    monkeypatch.setattr(pooled, "_BLOCK_POOL", 16)
    positives, pool = sides(rows, size)
    plain = gradients(SampledSoftmax(0.3), positives, pool)
    blocks = gradients(SampledSoftmax(0.3, in_blocks=True), positives, pool)
    for one, other in zip(plain, blocks, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_without_a_negative_there_is_no_loss_and_no_gradient():
    positives, pool = sides(5, 6, everything=True)
    for found in gradients(SampledSoftmax(in_blocks=True), positives, pool):
        assert torch.equal(found, torch.zeros_like(found))


def test_what_is_kept_for_the_backward_pass_does_not_hold_the_logits():
    def kept(size: int) -> int:
        sizes: list[int] = []

        def pack(x: torch.Tensor) -> torch.Tensor:
            sizes.append(x.numel())
            return x

        positives, pool = sides(64, size)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            SampledSoftmax(in_blocks=True)(positives, pool)
        return sum(sizes)

    # An entry's vector, its correction, two ids: nothing that is multiplied by the 64 queries.
    assert (kept(8192) - kept(1024)) / (8192 - 1024) <= D + 4


def test_a_pool_of_distinct_items_is_refused():
    positives, pool = sides(2, 2)
    distinct = Pool(
        item_PD=pool.item_PD,
        item_id_P=pool.item_id_P,
        user_id_P=pool.user_id_P,
        log_q_P=pool.log_q_P,
        distinct=True,
    )
    with pytest.raises(ValueError, match="keeps duplicates"):
        SampledSoftmax(in_blocks=True)(positives, distinct)


def test_every_entry_of_minus_infinity_is_a_masked_one():
    found = pooled.pooled_logsumexp(
        torch.ones(1, 2),
        torch.ones(2, 2),
        torch.zeros(2),
        (torch.tensor([1]), torch.tensor([5]), torch.tensor([1, 2]), torch.tensor([-1, 5])),
    )
    assert found.tolist() == [-math.inf]
