"""What the upstream model promises: separate towers, unit norm, independence, two losses."""

import dataclasses

import pytest
import torch

from feature_store.contracts.base import ENTITIES
from models.derm.config import LossConfig
from models.derm.model import FirstWindow
from models.nn.scopes import ScopeTokens, numeric_groups, sequence_groups
from models.nn.tokens import NumericRange
from tests.model_fixtures.batches import (
    SMALL,
    batch,
    inputs,
    model,
    objective,
    take,
    with_random_pins,
)
from tests.model_fixtures.world import spec


def replaced(names, *, rows=6):
    """A batch, and the same with other values of some columns."""
    first, other = batch(rows), batch(rows, seed=1)
    return first, {k: other[k] if k in names else v for k, v in first.items()}


def test_context_leaves_both_embeddings_as_they_are():
    context = {f.name for f in inputs().context} | {"surface", "ts"}
    plain, changed = replaced(context)
    first, second = model()(plain), model()(changed)
    assert torch.equal(first["user"], second["user"])
    assert torch.equal(first["pin"], second["pin"])
    assert not torch.equal(first["logits"], second["logits"])


def test_a_pin_does_not_depend_on_the_user_of_its_row():
    plain, changed = replaced({f.name for f in inputs().user})
    first, second = model()(plain), model()(changed)
    assert torch.equal(first["pin"], second["pin"])
    assert not torch.equal(first["user"], second["user"])


def test_the_three_lists_of_features_are_disjoint_and_complete():
    chosen, declared = inputs(), spec()
    every = (*declared.features, *(f for e in ENTITIES for f in declared.counting_features(e)))
    lists = [{f.name for f in scope} for scope in (chosen.user, chosen.pin, chosen.context)]
    assert sum(map(len, lists)) == len(set.union(*lists)) == len(every)


@pytest.mark.parametrize("scope", ["user", "pin"])
def test_a_tower_refuses_features_of_another_scope(scope):
    with pytest.raises(ValueError, match="expected only"):
        ScopeTokens(inputs().context, scope, SMALL.tokens)


def test_embeddings_have_norm_one():
    out = model()(batch(7))
    for entity in ("user", "pin"):
        torch.testing.assert_close(out[entity].norm(dim=1), torch.ones(7))


def test_embedding_one_entity_needs_only_its_own_features():
    whole, built = batch(4), model()
    for entity in ("user", "pin"):
        own = {f.name: whole[f.name] for f in getattr(inputs(), entity)}
        assert torch.equal(built.embed(entity, own), built(whole)[entity])


def test_an_entity_of_many_rows_is_embedded_once_with_the_same_result():
    events, users, pins = batch(9), batch(4, seed=1), batch(3, seed=2)
    of_user, of_pin = torch.arange(9) % 4, torch.arange(9) // 3
    plain, shared = dict(events), dict(events) | {"row:user": of_user, "row:pin": of_pin}
    for features, table, at in ((inputs().user, users, of_user), (inputs().pin, pins, of_pin)):
        for name in (f.name for f in features):
            plain[name], shared[name] = table[name][at], table[name]
    found = {}
    for name, rows in (("plain", plain), ("shared", shared)):
        trained = objective()
        embedded: list[int] = []

        def count(_module, _inputs, out, counted=embedded):
            counted.append(len(out[0]))

        for tower in (trained.model.user, trained.model.pin):
            tower.register_forward_hook(count)
        losses = trained(rows)
        losses["total"].backward()
        found[name] = losses, {n: p.grad for n, p in trained.named_parameters()}
    assert embedded == [4, 3]
    torch.testing.assert_close(found["shared"], found["plain"], atol=1e-6, rtol=1e-5)


def test_self_supervised_gradients_do_not_reach_the_overall_tower():
    trained, rows = objective(), batch(6)
    positive = rows["label:click"] == 1
    trained.self_supervised(trained.model(rows), rows, positive).backward()
    reached = {
        n for n, p in trained.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0
    }
    assert not any(n.startswith("model.overall") for n in reached)
    assert any(n.startswith("model.user") for n in reached)
    assert any(n.startswith("model.pin") for n in reached)


def objective_with(**loss):
    return objective(dataclasses.replace(SMALL, loss=dataclasses.replace(SMALL.loss, **loss)))


def test_a_pool_smaller_than_the_batch_is_drawn_from_all_of_it():
    trained, rows = objective_with(max_negatives=4), batch(12)
    out = trained.model(rows)
    out["pin"].retain_grad()
    first_only = torch.arange(12) == 0
    trained.self_supervised(out, rows, first_only).backward()
    reached = out["pin"].grad.abs().sum(dim=1) > 0
    assert reached.nonzero().flatten().tolist() == [0, 3, 6, 9]


def test_random_pins_join_the_pool_with_their_gradient():
    rows = with_random_pins(batch(6), seed=1)
    plain, mixed = objective_with(), objective_with(random_negatives=6)
    drawn = rows["random:content"].requires_grad_()
    losses = mixed(rows)
    losses["total"].backward()
    assert (drawn.grad.abs().sum(dim=1) > 0).all()
    assert losses["self_supervised"] > plain(rows)["self_supervised"]
    assert (int(mixed.sketch.total), int(mixed.random_sketch.total)) == (6, 6)
    assert (mixed.random_sketch.count(rows["random:key:pin"]) == 1).all()


def test_a_random_pin_that_is_the_positive_is_no_negative():
    rows = with_random_pins(batch(2), seed=1)
    rows["label:click"] = rows["label:good_click"] = torch.tensor([1.0, 0.0])
    rows["random:key:pin"] = rows["key:pin"][:1].expand(2)
    drawn = rows["random:content"].requires_grad_()
    objective_with(random_negatives=2)(rows)["total"].backward()
    assert drawn.grad.abs().sum() == 0


@pytest.mark.parametrize("estimator", ["linear", "exact"])
def test_a_pin_shown_twice_counts_once_under_exact(estimator):
    rows = batch(3)
    rows["label:click"] = rows["label:good_click"] = torch.tensor([1.0, 0.0, 0.0])
    rows["key:pin"] = rows["key:pin"][[0, 1, 1]]
    trained = objective_with(q_estimator=estimator)
    out = trained.model(rows)
    out["pin"].retain_grad()
    trained.self_supervised(out, rows, torch.tensor([True, False, False])).backward()
    reached = (out["pin"].grad.abs().sum(dim=1) > 0).tolist()
    assert reached == [True, True, estimator == "linear"]


def test_without_its_weight_the_self_supervised_loss_is_off():
    config = dataclasses.replace(SMALL, loss=LossConfig(ssl_weight=0.0))
    losses = objective(config)(batch(5))
    assert torch.equal(losses["total"], losses["supervised"])


def test_total_is_linear_in_the_weight_of_the_self_supervised_loss():
    found = {}
    for weight in (0.1, 0.3):
        loss = dataclasses.replace(SMALL.loss, ssl_weight=weight)
        found[weight] = objective(dataclasses.replace(SMALL, loss=loss))(batch(5))
    spread = found[0.3]["total"] - found[0.1]["total"]
    torch.testing.assert_close(spread, 0.2 * found[0.1]["self_supervised"])


def test_the_sketch_counts_while_training_only():
    trained, rows = objective(), batch(5)
    trained.eval()(rows)
    assert int(trained.sketch.total) == 0
    trained.train()(rows)
    assert int(trained.sketch.total) == 5
    assert (trained.sketch.count(rows["key:pin"]) >= 1).all()


def test_a_new_day_makes_the_sketches_fade_and_keeps_every_share():
    trained = objective_with(random_negatives=6, sketch_keep=0.25)
    rows = with_random_pins(batch(6), seed=1)
    trained(rows)
    counted = trained.sketch.count(rows["key:pin"])
    trained.begin_day()
    for sketch in (trained.sketch, trained.random_sketch):
        assert sketch.total == 6 * 0.25
    torch.testing.assert_close(trained.sketch.count(rows["key:pin"]), counted / 4)


def test_counts_rates_and_what_the_data_set_brings_have_a_token_each():
    groups = numeric_groups(inputs().user)
    declared, counts, rates = groups
    assert declared == ("user_clicks", "user_rate")
    assert len(counts) + len(rates) == len(spec().counting_features("user"))
    assert all("_rate_" in name for name in rates)
    assert not any("_rate_" in name for name in counts)


def test_the_overall_tower_is_shown_how_alike_the_embeddings_are_not_only_whether():
    """Equal but for the size of the product: same signs, other logits through that token alone."""
    tower, rows = model().overall.eval(), batch(2)
    shown = {}
    tower.dhen.register_forward_pre_hook(lambda _, x: shown.update(last=x[0][:, -1]))
    user = torch.zeros(2, 32)
    user[:, 0] = 1
    near = torch.zeros(2, 32)
    near[:, 0], near[:, 1] = torch.tensor([[0.9, 0.5], [0.19**0.5, 0.75**0.5]])
    tower({k: v[:1].expand_as(v) for k, v in rows.items()}, (user, None), (near, None))
    apart = (shown["last"][0] - shown["last"][1]).norm() / shown["last"][0].norm()
    assert apart > 0.2


def test_late_conversions_add_nothing_to_masked_tasks():
    trained, rows = objective(upstream="cvr"), batch(6, upstream="cvr")
    late = {**rows, "label:cvr_click": torch.full((6,), float("nan"))}
    trained(late)["supervised"].backward()
    head = trained.model.overall.heads["cvr_click"]
    assert all(p.grad.abs().sum() == 0 for p in head.parameters())


def test_rare_tasks_weigh_more_up_to_the_cap():
    loss = dataclasses.replace(SMALL.loss, weight_cap=10.0)
    trained = objective(dataclasses.replace(SMALL, loss=loss), upstream="cvr")
    rows = batch(6, upstream="cvr")
    plain = trained(rows)["supervised"]
    trained.model.base_rate_T.fill_(1e-3)
    torch.testing.assert_close(trained(rows)["supervised"], 10 / 2 * plain)


def test_heads_start_at_the_base_rate():
    built = model()
    offered = (*inputs().user, *inputs().pin, *inputs().context)
    ranges = {f.name: NumericRange() for f in offered if f.kind == "numeric"}
    rates = {"click": 0.03, "good_click": 0.01}
    built.fit(FirstWindow(ranges=ranges, base_rates=rates, sample=batch(9)))
    with torch.no_grad():
        for task in ("click", "good_click"):
            built.overall.heads[task].output.weight.zero_()
    chance = torch.sigmoid(built(batch(2))["logits"])
    torch.testing.assert_close(chance, torch.tensor([[0.03, 0.01]] * 2))


@pytest.mark.parametrize("shown", ["normalized", "raw"])
@pytest.mark.parametrize("dot", [True, False])
def test_variants_of_the_overall_tower(shown, dot):
    config = dataclasses.replace(SMALL, overtower_input=shown, dot_product=dot)
    assert torch.isfinite(model(config)(batch(3))["logits"]).all()


def test_parallel_sequences_share_an_encoder():
    (group,) = sequence_groups(spec().features)
    assert [f.name for f in group] == ["seen_pins", "seen_actions"]


def test_it_overfits_eight_rows():
    trained, rows = objective(), batch(8)
    optimizer = torch.optim.Adam(trained.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        loss = trained(rows)["supervised"]
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05


def test_rows_do_not_depend_on_each_other():
    built, rows = model().eval(), batch(5)
    whole = built(rows)["logits"]
    for i in range(5):
        alone = built(take(rows, slice(i, i + 1)))["logits"][0]
        torch.testing.assert_close(alone, whole[i], atol=1e-5, rtol=1e-5)
