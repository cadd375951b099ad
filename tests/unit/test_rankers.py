"""Rankers: known answers, oracles by loops, what is missing, and that they learn."""

import dataclasses

import pytest
import torch
from torch.nn import functional

from models.nn.config import ExpertsConfig
from models.nn.cross import CrossNetwork
from models.nn.experts import CrossExperts, ExpertMixture, ParallelMLP
from models.rankers.parts.blocks import SharedTable
from models.rankers.parts.vectors import PoolVector, VectorBlock
from tests.model_fixtures import rankers

CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def test_every_cross_expert_doubles_the_published_example():
    """DCNv2 (arXiv 2008.13535), equation 1, by hand for two layers of the same weights."""
    experts = CrossExperts(2, 3, 2)
    weight = torch.tensor([[0.1, 0.2, 0.0], [0.0, -0.3, 0.5], [1.0, 0.0, 0.2]])
    with torch.no_grad():
        for layer in experts.layers:
            layer.weight.copy_(weight.T)
            layer.bias.copy_(torch.tensor([0.01, -0.02, 0.03]))
    found = experts(torch.tensor([[1.0, -2.0, 0.5]]))
    want = torch.tensor([[0.059, -6.881, 1.5415]])
    for expert in found:
        torch.testing.assert_close(expert, want, **CLOSE)


@pytest.mark.parametrize("rank", [None, 2])
def test_batched_crosses_equal_one_network_after_the_other(rank):
    torch.manual_seed(0)
    batched, x = CrossExperts(3, 5, 2, rank=rank), torch.randn(4, 5)
    together = batched(x)
    for k in range(3):
        alone = CrossNetwork(5, 2, rank=rank)
        with torch.no_grad():
            for i, layer in enumerate(alone.layers):
                if rank is None:
                    layer.linear.weight.copy_(batched.layers[i].weight[k].T)
                    layer.linear.bias.copy_(batched.layers[i].bias[k])
                else:
                    layer.down.copy_(batched.down[i].weight[k : k + 1])
                    layer.up.copy_(batched.layers[i].weight[k : k + 1])
                    layer.bias.copy_(batched.layers[i].bias[k])
        torch.testing.assert_close(together[k], alone(x), **CLOSE)


def test_the_width_of_the_crosses_is_aligned_and_zeros_in_it_change_nothing():
    torch.manual_seed(0)
    objective = rankers.objective(rankers.CTR)
    ranker = objective.model
    width = ranker.experts.cross.layers[0].weight.shape[1]
    assert width % 16 == 0
    assert ranker.padding > 0, "a width that needs it, or nothing is tested"
    batch = rankers.batch(rows=8)
    before = ranker(batch)["logits"]
    with torch.no_grad():
        for layer in (*ranker.experts.cross.layers, ranker.experts.deep.layers[0]):
            layer.weight[:, -ranker.padding :] = 1e3
        ranker.experts.gates.linear.weight[:, -ranker.padding :] = 1e3
    torch.testing.assert_close(ranker(batch)["logits"], before)


@pytest.mark.parametrize("gates", [1, 3], ids=["shared", "a gate per task"])
def test_a_mixture_equals_a_loop_over_gates_and_experts(gates):
    torch.manual_seed(1)
    mixture = ExpertMixture(5, gates, ExpertsConfig(num_experts=2, cross_layers=1, hidden=(6, 4)))
    x = torch.randn(7, 5)
    found = mixture(x)
    cross, deep = mixture.cross.layers[0], mixture.deep.layers
    for gate in range(gates):
        logits = x @ mixture.gates.linear.weight[2 * gate : 2 * gate + 2].T
        share = logits.exp() / logits.exp().sum(dim=1, keepdim=True)
        want = torch.zeros(7, 4)
        for k in range(2):
            h = x * (x @ cross.weight[k] + cross.bias[k]) + x
            h = functional.leaky_relu(h @ deep[0].weight[k] + deep[0].bias[k], 0.2)
            h = functional.leaky_relu(h @ deep[1].weight[k] + deep[1].bias[k], 0.2)
            want += share[:, k : k + 1] * h
        torch.testing.assert_close(found[gate], want, **CLOSE)


def test_towers_of_tasks_do_not_mix():
    torch.manual_seed(2)
    towers, x = ParallelMLP(3, (4, 5, 1)), torch.randn(3, 6, 4)
    before = towers(x)
    x[1] += 1
    after = towers(x)
    assert torch.equal(before[[0, 2]], after[[0, 2]])
    assert not torch.equal(before[1], after[1])


def test_one_table_equals_a_table_for_each_feature():
    torch.manual_seed(3)
    categorical, lists = rankers.looked_up()
    shared, batch = SharedTable(categorical, lists, 3), rankers.batch(5)
    found, start, parts = shared(batch), 0, []
    for feature in (*categorical, *lists):
        own = shared.table.weight[start : start + feature.cardinality]
        start += feature.cardinality
        ids = batch[feature.name].long()
        if feature.kind == "categorical":
            parts.append(own[ids])
            continue
        known = (ids > 0).float()[:, :, None]
        parts.append((own[ids] * known).sum(1) / known.sum(1).clamp(min=1))
    torch.testing.assert_close(found, torch.cat(parts, dim=1), **CLOSE)


def test_a_vector_of_zeros_reads_the_learned_default():
    vector = PoolVector(4)
    with torch.no_grad():
        vector.default.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    found = vector(torch.tensor([[0.0] * 4, [2.0, 0.0, 0.0, -2.0]]))
    assert found[0].tolist() == [1, 2, 3, 4, 1]
    assert found[1, 4] == 0
    assert torch.isfinite(found).all()
    # The length of a vector is taken away, its direction stays.
    longer = vector(torch.tensor([[4.0, 0.0, 0.0, -4.0]]))
    torch.testing.assert_close(found[1:], longer, atol=1e-4, rtol=1e-4)


def test_projecting_entities_equals_projecting_the_rows_block():
    torch.manual_seed(4)
    block, plain = VectorBlock(rankers.VECTORS, 5), VectorBlock(rankers.VECTORS, 0)
    batch = rankers.batch(6)
    whole = torch.cat([block.project[e].weight for e in ("user", "pin")], dim=1)
    torch.testing.assert_close(block(batch), plain(batch) @ whole.T, **CLOSE)


@pytest.mark.parametrize("config", [rankers.CTR, rankers.PER_TASK, rankers.CVR], ids=str)
def test_distinct_users_and_pins_change_no_logit(config):
    torch.manual_seed(5)
    ranker, batch = rankers.ranker(config).eval(), rankers.batch(4)
    rows = {"user": torch.tensor([0, 0, 2, 1]), "pin": torch.tensor([3, 1, 1, 0])}
    inputs = rankers.inputs()
    names = {
        e: {f.name for f in (*getattr(inputs, e), *inputs.vectors) if f.scope == e} for e in rows
    }
    repeated = {
        name: next((x[at] for e, at in rows.items() if name in names[e]), x)
        for name, x in batch.items()
    }
    distinct = batch | {f"row:{e}": at for e, at in rows.items()}
    torch.testing.assert_close(ranker(distinct)["logits"], ranker(repeated)["logits"], **CLOSE)


@pytest.mark.parametrize("config", [rankers.CTR, rankers.CVR], ids=["ctr", "cvr"])
def test_nobody_known_to_any_pool_is_a_number(config):
    ranker, batch = rankers.ranker(config), rankers.batch(3)
    nobody = {f.name: torch.zeros(3, f.dim) for f in rankers.VECTORS}
    unseen = {"surface": torch.zeros(3, dtype=torch.int32)}
    assert torch.isfinite(ranker(batch | nobody | unseen)["logits"]).all()


@pytest.mark.parametrize("value", [0.0, 1.0, float("nan")])
def test_labels_of_one_class_leave_the_loss_finite(value):
    objective, batch = rankers.objective(rankers.CTR), rankers.batch(4)
    one = {name: torch.full((4,), value) for name in batch if name.startswith("label:")}
    losses = objective(batch | one)
    losses["total"].backward()
    assert torch.isfinite(losses["total"])
    assert all(torch.isfinite(p.grad).all() for p in objective.parameters())


@pytest.mark.parametrize("config", [rankers.CTR, rankers.PER_TASK, rankers.CVR], ids=str)
def test_eight_rows_are_learned_by_heart(config):
    torch.manual_seed(6)
    objective, batch = rankers.objective(config), rankers.batch(8)
    optimizer = torch.optim.Adam(objective.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        objective(batch)["total"].backward()
        optimizer.step()
    told = objective.targets(batch)
    assert ((objective.predict(batch) > 0) == (told > 0.5)).all()


def test_the_next_action_teaches_the_encoder_and_is_no_leak():
    torch.manual_seed(7)
    config = dataclasses.replace(rankers.CVR, next_action=0.1)
    objective, batch = rankers.objective(config), rankers.batch(6)
    losses = objective(batch)
    expected = losses["supervised"] + 0.1 * losses["next_action"]
    torch.testing.assert_close(losses["total"], expected)
    losses["next_action"].backward()
    token = objective.model.user.encoders[0]
    assert token.element.weight.grad.abs().sum() > 0
    # What is compared with must not be in what it is compared by.
    queries = []
    head = objective.next_action.query
    head.register_forward_pre_hook(lambda _, given: queries.append(given[0].detach()))
    objective(batch)
    name = objective.next_action.names[0]
    newest = batch[name].clone()
    newest[:, 0] = newest[:, 0] % 7 + 1
    objective(batch | {name: newest})
    assert torch.equal(*queries)


def test_nobody_with_two_actions_costs_nothing():
    config = dataclasses.replace(rankers.CVR, next_action=0.1)
    objective, batch = rankers.objective(config), rankers.batch(3)
    names = objective.next_action.names
    none = {name: torch.zeros_like(batch[name]) for name in names}
    assert objective(batch | none)["next_action"] == 0
