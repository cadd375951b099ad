"""Each part of the model does its part: in its place, with its sign, apart from its neighbours."""

import math

import pytest
import torch

from jobs.steps.training_plan import _phases
from models.nn.scopes import ScopeTokens
from models.nn.tokens import NumericToken, Token
from tests.model_fixtures.batches import SMALL, batch, inputs, model, objective


def unit(*at):
    """One-hot embeddings."""
    return torch.eye(32)[list(at)]


def logits(user, pin, rows=None):
    """What the overall tower says of two embeddings, in one and the same context."""
    return model().overall.eval()(rows or batch(1), (user, None), (pin, None))


def test_the_overall_tower_tells_users_apart_that_are_equally_close():
    assert not torch.allclose(logits(unit(0), unit(2)), logits(unit(1), unit(2)))


def test_the_overall_tower_tells_pins_apart_that_are_equally_close():
    assert not torch.allclose(logits(unit(2), unit(0)), logits(unit(2), unit(1)))


def test_user_and_pin_have_places_of_their_own():
    assert not torch.allclose(logits(unit(0), unit(1)), logits(unit(1), unit(0)))


@pytest.mark.parametrize("column", ["surface", "ts", "position", "query"])
def test_every_part_of_the_context_is_heard(column):
    rows, other = batch(1), batch(1, seed=1)
    rows["surface"], other["surface"] = torch.tensor([1]), torch.tensor([2])
    changed = {**rows, column: other[column]}
    assert not torch.allclose(
        logits(unit(0), unit(1), rows), logits(unit(0), unit(1), changed), atol=1e-5
    )


@pytest.mark.parametrize("scope", ["user", "pin"])
def test_a_feature_moves_its_own_token_and_no_other(scope):
    """Features are moved one at a time: each moves one token, and every token is moved."""
    torch.manual_seed(0)
    features = getattr(inputs(), scope)
    tokens = ScopeTokens(features, scope, SMALL.tokens).eval()
    rows, other = batch(3), batch(3, seed=1)
    plain, moved = tokens(rows), {}
    for feature in features:
        # Another value for certain, of whatever kind.
        value = other[feature.name]
        if feature.kind == "categorical":
            value = (rows[feature.name] % (feature.cardinality - 1)) + 1
        apart = (tokens({**rows, feature.name: value}) - plain).abs().amax(dim=(0, 2)) > 1e-6
        moved[feature.name] = apart.nonzero().flatten().tolist()
    assert all(len(at) == 1 for at in moved.values()), moved
    assert {at[0] for at in moved.values()} == set(range(tokens.num_tokens))


def test_a_token_is_normalised():
    torch.manual_seed(0)
    out = Token(5, 8)(100 * torch.randn(4, 5)).detach()
    torch.testing.assert_close(out.mean(dim=1), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.var(dim=1, unbiased=False), torch.ones(4), atol=1e-3, rtol=0)


def test_missing_is_not_the_mean():
    torch.manual_seed(0)
    token = NumericToken(2, 8)
    known, missing = token(torch.tensor([[0.0, 0.5], [math.nan, 0.5]])).detach()
    assert not torch.allclose(known, missing)


def test_the_self_supervised_loss_by_hand():
    """User by Pin, log Q taken from both, entries of the same Pin or the same user left out."""
    trained, rows = objective(), batch(5)
    rows["key:pin"] = torch.tensor([7, 8, 7, 9, 10])
    rows["key:user"] = torch.tensor([1, 2, 3, 1, 4])
    positive = torch.tensor([True, False, True, True, False])
    out = trained.model(rows)
    found = trained.self_supervised(out, rows, positive)
    user, pin = (out[e].detach().double() for e in ("user", "pin"))
    ids, who = rows["key:pin"].tolist(), rows["key:user"].tolist()
    log_q = [math.log(ids.count(i) / 5) + math.log(5) for i in ids]
    losses = []
    for i in positive.nonzero().flatten().tolist():
        hit = float(user[i] @ pin[i]) / SMALL.loss.temperature - log_q[i]
        others = [
            float(user[i] @ pin[j]) / SMALL.loss.temperature - log_q[j]
            for j in range(5)
            if ids[j] != ids[i] and not (positive[j] and who[j] == who[i])
        ]
        losses.append(math.log(sum(math.exp(x) for x in [hit, *others])) - hit)
    assert found.item() == pytest.approx(sum(losses) / 3, rel=1e-4)


def test_today_is_scored_before_it_is_trained_on():
    for days, parent in ((("a", "b", "c"), None), (("c",), object())):
        kinds = [(p.kind, p.ds) for p in _phases(days, parent, 1)]
        assert kinds[-2:] == [("score", "c"), ("train", "c")]
        assert ("train", "c") not in kinds[:-1]
    first, score, second = _phases(("a",), None, 1)
    assert [(p.kind, p.half) for p in (first, score, second)] == [
        ("train", "first"), ("score", "second"), ("train", "second"),
    ]  # fmt: skip
