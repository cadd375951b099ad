"""Blocks against numbers worked by hand and against independent NumPy formulas."""

import math
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.nn.count_min import CountMinSketch
from models.nn.cross import CrossNetwork, LowRankCrossLayer
from models.nn.masknet import MaskBlock
from models.nn.sampled_softmax import (
    NO_USER,
    Pool,
    Positives,
    SampledSoftmax,
    concatenate,
    log_q_exact,
    log_q_linear,
)
from models.nn.time_encoding import TimeEncoding
from models.nn.tokens import NumericNormalizer, NumericRange, ScalarToken
from models.nn.transformer import EncoderLayer, Padding

TOLERANCE = 1e-5


def test_cross_network_doubles_the_published_example():
    cross = CrossNetwork(3, 2)
    with torch.no_grad():
        for layer in cross.layers:
            layer.linear.weight.copy_(
                torch.tensor([[0.1, 0.2, 0.0], [0.0, -0.3, 0.5], [1.0, 0.0, 0.2]])
            )
            layer.linear.bias.copy_(torch.tensor([0.01, -0.02, 0.03]))
    x = torch.tensor([[1.0, -2.0, 0.5]])
    first = cross.layers[0](x, x)
    np.testing.assert_allclose(first.detach(), [[0.71, -3.66, 1.065]], atol=TOLERANCE)
    np.testing.assert_allclose(cross(x).detach(), [[0.059, -6.881, 1.5415]], atol=TOLERANCE)


def test_low_rank_cross_equals_a_full_rank_one_with_the_same_matrix():
    torch.manual_seed(0)
    low = LowRankCrossLayer(4, 2)
    x0, x = torch.randn(3, 4), torch.randn(3, 4)
    matrix = (low.down[0] @ low.up[0]).detach().numpy()
    expected = x0.numpy() * (x.numpy() @ matrix + low.bias.detach().numpy()) + x.numpy()
    np.testing.assert_allclose(low(x0, x).detach(), expected, atol=TOLERANCE)


def test_mixture_of_crosses_equals_a_loop_over_experts():
    torch.manual_seed(0)
    mixture = LowRankCrossLayer(4, 2, num_experts=3)
    x0, x = torch.randn(3, 4), torch.randn(3, 4)
    gate = torch.softmax(x @ mixture.gate.weight.T, dim=-1)
    expected = x.clone()
    for k in range(3):
        low = torch.tanh(torch.tanh(x @ mixture.down[k]) @ mixture.core[k])
        expected = expected + gate[:, k : k + 1] * (x0 * (low @ mixture.up[k] + mixture.bias))
    np.testing.assert_allclose(mixture(x0, x).detach(), expected.detach(), atol=TOLERANCE)


def test_mask_block_doubles_the_published_example():
    block = MaskBlock(4, 4, 3, ratio=0.5)
    with torch.no_grad():
        block.squeeze.weight.copy_(torch.tensor([[0.1, 0.2, 0.3, 0.4], [-0.1, 0.1, -0.1, 0.1]]))
        block.squeeze.bias.copy_(torch.tensor([0.0, 0.5]))
        block.mask.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.5, -0.5]]))
        block.mask.bias.fill_(0.1)
        block.hidden.weight.copy_(
            torch.tensor([[0.2, 0.0, 0.1, 0.0], [0.0, 0.3, 0.0, 0.1], [0.1, 0.1, 0.1, 0.1]])
        )
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    np.testing.assert_allclose(block(x, x).detach(), [[0.303458, 0, 1.04446]], atol=TOLERANCE)


def test_time_encoding_doubles_the_published_example():
    encode = TimeEncoding((900.0, 3600.0, 86_400.0))
    found = encode(torch.tensor([3600.0], dtype=torch.float64)).detach()
    expected = [[1, 0, 1, 0, 0.965926, 0.258819, 8.188967]]
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)


def test_time_encoding_resolves_seconds_of_today():
    encode = TimeEncoding((60.0,), with_log=False)
    now = torch.tensor([1_760_000_000.0, 1_760_000_001.0], dtype=torch.float64)
    angle = 2 * math.pi * (now.numpy() % 60) / 60
    found = encode(now).detach()
    np.testing.assert_allclose(found, np.stack([np.cos(angle), np.sin(angle)], 1), atol=TOLERANCE)


class TestSampledSoftmax:
    """The released test values of OmniSearchSage, with counters updated before use."""

    half = math.sqrt(0.5)
    queries = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [1.0, 1.0]])
    items = torch.tensor([[half, half]] * 3 + [[1.0, 0.0]])
    random = torch.tensor([[1.0, 2.0]]) / math.sqrt(5)
    item_ids = torch.tensor([3, 7, 1, 1])
    random_ids = torch.tensor([4])

    @pytest.fixture
    def sketches(self):
        # Wide enough for the few ids here not to collide: the counts are exact.
        return {name: CountMinSketch(2, 2**16) for name in ("item", "query", "pair", "random")}

    def losses(self, sketches, query_ids):
        query_ids = torch.tensor(query_ids)
        pairs = self.item_ids + 17 * query_ids
        sketches["item"].update(self.item_ids)
        sketches["query"].update(query_ids)
        sketches["pair"].update(pairs)
        sketches["random"].update(self.random_ids)
        positives = Positives(
            query_RD=self.queries,
            item_RD=self.items,
            item_id_R=self.item_ids,
            user_id_R=query_ids,
            # Conditional on the query, as released; the upstream models take the marginal one.
            log_q_R=sketches["pair"].count(pairs).log() - sketches["query"].count(query_ids).log(),
        )
        in_batch, outside = sketches["item"], sketches["random"]

        def pools(totals, sizes):
            first = Pool(
                item_PD=self.items,
                item_id_P=self.item_ids,
                user_id_P=query_ids,
                log_q_P=log_q_linear(in_batch.count(self.item_ids), totals[0], sizes[0]),
            )
            second = Pool(
                item_PD=self.random,
                item_id_P=self.random_ids,
                user_id_P=torch.tensor([NO_USER]),
                log_q_P=log_q_linear(outside.count(self.random_ids), totals[1], sizes[1]),
            )
            return [first, second]

        softmax = SampledSoftmax(0.07)
        apart = pools((in_batch.total, outside.total), (4, 1))
        together = concatenate(*pools((in_batch.total + outside.total,) * 2, (5, 5)))
        return [softmax(positives, pool).mean().item() for pool in (*apart, together)]

    def test_first_call(self, sketches):
        found = self.losses(sketches, [1, 3, 7, 9])
        assert found == pytest.approx([3.047798, 1.989588, 3.596282], abs=TOLERANCE)

    def test_counts_are_carried_over(self, sketches):
        for query_ids in ([1, 3, 7, 9], [7, 7, 9, 7]):
            self.losses(sketches, query_ids)
        found = self.losses(sketches, [1, 3, 7, 9])
        assert found[:2] == pytest.approx([2.970260, 1.961935], abs=TOLERANCE)


def test_exact_q_is_the_chance_of_occurring_at_least_once():
    count, total = torch.tensor([1, 50]), torch.tensor(100)
    expected = np.log([1 - 0.99**10, 1 - 0.5**10])
    np.testing.assert_allclose(log_q_exact(count, total, 10), expected, rtol=1e-6)


def test_exact_q_of_a_rare_item_stays_finite():
    assert torch.isfinite(log_q_exact(torch.tensor([1]), torch.tensor(2**60), 2)).all()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=60), st.integers(1, 16))
def test_count_min_never_underestimates(ids, width):
    sketch = CountMinSketch(2, width)
    sketch.update(torch.tensor(ids))
    found = sketch.count(torch.tensor(ids))
    assert all(int(n) >= ids.count(i) for n, i in zip(found, ids, strict=True))
    assert int(sketch.total) == len(ids)


def test_count_min_counts_travel_with_the_state():
    sketch, copy = CountMinSketch(), CountMinSketch()
    sketch.update(torch.tensor([5, 5, 9]))
    copy.load_state_dict(sketch.state_dict())
    assert copy.count(torch.tensor([5, 9, 1])).tolist() == [2, 1, 0]


@pytest.mark.parametrize("strip", [True, False])
def test_attention_equals_the_formula_and_ignores_padding(strip):
    torch.manual_seed(0)
    layer = EncoderLayer(8, 2)
    x = torch.randn(2, 4, 8)
    valid = torch.tensor([[True, True, True, False], [True, True, False, False]])
    padding = Padding.of(valid, strip=strip)
    with torch.no_grad():
        found = layer._attend(padding.strip(x), padding)
        q, k, v = (p.view(2, 4, 2, 4).transpose(1, 2) for p in layer.qkv(x).chunk(3, dim=-1))
        scores = (q @ k.transpose(-1, -2)) / 2.0
        scores = scores.masked_fill(~valid[:, None, None, :], -math.inf)
        expected = (torch.softmax(scores, -1) @ v).transpose(1, 2).reshape(2, 4, 8)
        expected = layer.project(expected)
    np.testing.assert_allclose(found, padding.strip(expected), atol=TOLERANCE)


def test_numeric_recipe_by_hand():
    normalize = NumericNormalizer(3)
    ranges = [
        NumericRange(minimum=1.0, maximum=100.0, std=5.0),
        NumericRange(minimum=0.0, maximum=1.0, std=0.1),
        NumericRange(minimum=3.0, maximum=3.0, std=0.0),
    ]
    normalize.fit(ranges)
    x = torch.tensor([[10.0, 0.25, 3.0], [1e9, -5.0, 7.0], [math.nan, math.nan, math.nan]])
    scaled = np.array([[math.log(10) / math.log(100), 0.25, 0], [1, 0, 0], [0, 0, 0]])
    np.testing.assert_allclose(normalize(x), np.arcsinh(scaled), atol=1e-6)
    normalize.fit_spread(x)
    # Of two rows, the third being unknown, the mean is the middle and the spread half their gap.
    np.testing.assert_allclose(
        normalize(x), np.arcsinh([[-1, 1, 0], [1, -1, 0], [0, 0, 0]]), atol=1e-6
    )


def test_a_rate_is_heard_as_well_as_a_count():
    """Smoothed rates lie within thousandths of everybody's; counts fill their range."""
    random = np.random.default_rng(0)
    counts, rates = random.poisson(20, 4000), 0.03 + random.normal(0, 0.0015, 4000)
    x = torch.tensor(np.stack([counts, rates], axis=1), dtype=torch.float32)
    normalize = NumericNormalizer(2)
    normalize.fit([NumericRange(maximum=5000.0, std=5000.0), NumericRange(maximum=1.0, std=1.0)])
    normalize.fit_spread(x)
    spread = normalize(x).std(dim=0)
    assert 0.6 < spread[0] / spread[1] < 1.6
    assert spread.min() > 0.5
    assert normalize(torch.tensor([[20.0, 1.0]])).max() < 10  # an outlier is tamed


def test_a_feature_without_spread_in_the_sample_reads_zero():
    normalize = NumericNormalizer(2)
    normalize.fit([NumericRange(maximum=9.0), NumericRange(maximum=9.0)])
    normalize.fit_spread(torch.tensor([[4.0, math.nan], [4.0, math.nan]]))
    assert normalize(torch.tensor([[5.0, 5.0]])).tolist() == [[0.0, 0.0]]


def test_scalars_of_one_sign_keep_their_size_through_the_norm():
    torch.manual_seed(0)
    token = ScalarToken(16)
    near, far = token(torch.tensor([0.9, 0.5])).detach()
    assert (near - far).norm() > 1.0
    apart = token(torch.linspace(-1, 1, 21)).detach()
    assert torch.cdist(apart, apart).fill_diagonal_(9).min() > 0.2


def test_a_fading_sketch_follows_pins_that_come_and_go():
    """2 % of the Pins are replaced daily; Q of what is shown, against what it is that day."""
    random, pins, rows, churn_days = np.random.default_rng(0), 1000, 8192, 60
    weight = (random.permutation(pins + 20 * churn_days) + 1.0) ** -1.05
    ids = np.arange(len(weight))
    born = np.maximum(0, (ids - pins) // 20 + 1)
    gone = born + 1 + random.exponential(50, len(ids))
    fading, lasting = CountMinSketch(), CountMinSketch()
    within, new = {0.5: [], 1.0: []}, {0.5: [], 1.0: []}
    for day in range(churn_days):
        chance = np.where((born <= day) & (gone > day), weight, 0)
        chance /= chance.sum()
        shown = torch.from_numpy(random.choice(ids, rows, p=chance))
        for keep, sketch in ((0.5, fading), (1.0, lasting)):
            sketch.fade(keep)
            for batch in shown.split(256):
                sketch.update(batch)
                if day < churn_days - 3:
                    continue
                ratio = (sketch.count(batch) / sketch.total).numpy() / chance[batch]
                within[keep].append(np.abs(np.log2(ratio)) < 1)
                new[keep].append(ratio[born[batch] == day])
    assert np.concatenate(within[0.5]).mean() > 0.9
    assert np.median(np.concatenate(new[0.5])) > 1 / 4
    assert np.concatenate(within[1.0]).mean() < 0.8  # what it would be without fading
    assert np.median(np.concatenate(new[1.0])) < 1 / 30


def test_an_update_of_the_sketch_does_not_touch_the_whole_width():
    """Time of a batch in a sketch 256 times as wide: the same, but for noise."""
    ids = torch.arange(256)
    seconds = {}
    for width in (2**14, 2**22):
        sketch = CountMinSketch(2, width)
        times = []
        for _ in range(7):
            started = time.perf_counter()
            sketch.update(ids)
            times.append(time.perf_counter() - started)
        seconds[width] = min(times)
    assert seconds[2**22] < 20 * seconds[2**14]
