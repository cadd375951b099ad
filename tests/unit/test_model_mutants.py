"""What if a part of the model were swapped, dropped, or of the wrong sign: some test would fail.

A mutant is the source of one function with a few characters replaced. The tests that claim to
protect that function are run against it, and have to fail.
"""

import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest
import torch

from jobs.steps import training_plan
from models.derm.losses import DermObjective
from models.derm.model import DermModel
from models.derm.towers import EntityTower, OverallTower
from models.nn import sampled_softmax
from models.nn.count_min import CountMinSketch
from models.nn.dhen import DhenLayer, TokenMixer
from models.nn.masknet import MaskBlock
from models.nn.sampled_softmax import SampledSoftmax
from models.nn.time_encoding import TimeEncoding
from models.nn.tokens import BagToken, NumericNormalizer, NumericToken, ScalarToken, Token
from models.nn.transformer import EncoderLayer, SequenceEncoder
from models.training.delayed import DelayedLabels
from models.training.metrics import BinaryMetrics
from tests.unit import (
    test_delayed,
    test_derm_model,
    test_losses,
    test_model_conformance,
    test_model_parts,
    test_nn_known_answers,
    test_nn_oracles,
    test_training_metrics,
)

dhen = partial(test_nn_oracles.test_a_dhen_layer_equals_the_formula, "concat", ("mask", "mlp"), 3)
attention = partial(
    test_nn_oracles.test_a_dhen_layer_equals_the_formula, "sum", ("transformer", "linear"), 4
)
sequence = partial(test_nn_oracles.test_the_sequence_encoder_equals_the_formula, 6, True)
# Where padding is left out, each of its rows has a class without any.
padded = partial(test_nn_oracles.test_the_sequence_encoder_equals_the_formula, 6, False)
by_loop = partial(test_losses.test_softmax_equals_a_loop, False)
level = partial(test_delayed.test_the_truth_is_where_a_corrected_loss_is_level, "taken_back")
weighted = partial(test_delayed.test_the_truth_is_where_a_corrected_loss_is_level, "weighted")


@dataclass(frozen=True)
class Mutant:
    """A function, what is replaced in its source, and the test that must notice.

    Attributes:
        owner: the class or module that holds it.
    """

    owner: object
    name: str
    old: str
    new: str
    test: Callable[[], None]

    def __str__(self) -> str:
        owner = getattr(self.owner, "__name__", "").rpartition(".")[2]
        return f"{owner}.{self.name}: {self.old} -> {self.new}"

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Put the mutant in the place of the function."""
        function = inspect.unwrap(getattr(self.owner, self.name))
        source = textwrap.dedent(inspect.getsource(function))
        assert self.old in source, f"{self}: the function has changed, its mutant has to follow"
        scope = dict(function.__globals__)
        exec(compile(source.replace(self.old, self.new, 1), str(self), "exec"), scope)  # noqa: S102
        patch.setattr(self.owner, self.name, scope[self.name])


parts, model = test_model_parts, test_derm_model
MUTANTS = (
    Mutant(
        OverallTower, "forward", "(user[0] * pin[0]).sum(dim=1)",
        "(user[0] * pin[0]).sum(dim=1).sign()",
        model.test_the_overall_tower_is_shown_how_alike_the_embeddings_are_not_only_whether,
    ),
    Mutant(
        OverallTower, "forward", "(user[0] * pin[0]).sum(dim=1)",
        "0 * (user[0] * pin[0]).sum(dim=1)",
        model.test_the_overall_tower_is_shown_how_alike_the_embeddings_are_not_only_whether,
    ),
    Mutant(
        OverallTower, "forward", "user[0].view(-1, *shape), pin", "pin[0].view(-1, *shape), pin",
        parts.test_the_overall_tower_tells_users_apart_that_are_equally_close,
    ),
    Mutant(
        OverallTower, "forward", "pin[0].view(-1, *shape)]", "user[0].view(-1, *shape)]",
        parts.test_the_overall_tower_tells_pins_apart_that_are_equally_close,
    ),
    Mutant(
        OverallTower, "forward", "self.context(batch)", "0 * self.context(batch)",
        partial(parts.test_every_part_of_the_context_is_heard, "query"),
    ),
    Mutant(
        DermModel, "forward", '"user": user[0], "pin": pin[0]', '"user": pin[0], "pin": user[0]',
        model.test_a_pin_does_not_depend_on_the_user_of_its_row,
    ),
    Mutant(
        EntityTower, "forward", "functional.normalize(tokens_BLD.float().flatten(1), dim=-1)",
        "tokens_BLD.float().flatten(1)", model.test_embeddings_have_norm_one,
    ),
    Mutant(ScalarToken, "forward", "torch.sin(angle_BK)", "torch.cos(angle_BK)",
        test_nn_known_answers.test_scalars_of_one_sign_keep_their_size_through_the_norm),
    Mutant(Token, "forward", "self.norm(self.linear(x_BE))", "self.linear(x_BE)",
        parts.test_a_token_is_normalised),
    Mutant(NumericToken, "forward", "torch.isnan(x_BF)", "torch.isinf(x_BF)",
        parts.test_missing_is_not_the_mean),
    Mutant(NumericNormalizer, "forward", " - self.mean_F", "",
        test_nn_known_answers.test_numeric_recipe_by_hand),
    Mutant(NumericNormalizer, "forward", " / self.std_F", "",
        test_nn_known_answers.test_a_rate_is_heard_as_well_as_a_count),
    Mutant(NumericNormalizer, "forward", "torch.asinh", "",
        test_nn_known_answers.test_a_rate_is_heard_as_well_as_a_count),
    Mutant(BagToken, "forward", " / length_B", "",
        test_model_conformance.test_a_padded_bag_is_the_mean_of_its_elements),
    Mutant(TimeEncoding, "forward", "torch.cos(angle_BP", "torch.sin(angle_BP",
        test_nn_known_answers.test_time_encoding_doubles_the_published_example),
    Mutant(MaskBlock, "forward", "mask_BH * x_BH", "mask_BH",
        test_nn_known_answers.test_mask_block_doubles_the_published_example),
    Mutant(TokenMixer, "forward", "x_BMD.transpose(1, 2)", "x_BMD.flip(1).transpose(1, 2)", dhen),
    Mutant(DhenLayer, "forward", " + self.shortcut(x_BMD)", "", dhen),
    Mutant(DhenLayer, "forward", "mixed_BLD + self", "mixed_BLD - self", dhen),
    Mutant(EncoderLayer, "forward", "x + fed", "fed", attention),
    Mutant(EncoderLayer, "forward", "x + self._attend", "self._attend", attention),
    Mutant(EncoderLayer, "_attention", "valid_BT[:, None, None, :]", "None", padded),
    Mutant(SequenceEncoder, "reduce", "amax(dim=1)", "mean(dim=1)", sequence),
    Mutant(SampledSoftmax, "forward", "hit_R - positives", "hit_R + positives",
        test_losses.test_softmax_by_hand),
    Mutant(SampledSoftmax, "forward", "scale - pool", "scale + pool",
        parts.test_the_self_supervised_loss_by_hand),
    Mutant(SampledSoftmax, "forward", ".sum(1) * scale", ".sum(1)", by_loop),
    Mutant(SampledSoftmax, "forward", "positives.item_id_R[:, None] == pool.item_id_P[None]",
        "positives.item_id_R[:, None] != positives.item_id_R[:, None]",
        parts.test_the_self_supervised_loss_by_hand),
    Mutant(SampledSoftmax, "forward", "positives.user_id_R[:, None] == pool.user_id_P[None]",
        "positives.user_id_R[:, None] != positives.user_id_R[:, None]", by_loop),
    Mutant(SampledSoftmax, "scale", "max=-math.log(MIN_TEMPERATURE)", "max=99.0",
        test_losses.test_temperature_cannot_fall_below_its_bound),
    Mutant(sampled_softmax, "log_q_exact", "** pool_size", "* pool_size",
        test_nn_known_answers.test_exact_q_is_the_chance_of_occurring_at_least_once),
    Mutant(DermObjective, "self_supervised", 'query_RD=out["user"]', 'query_RD=out["pin"]',
        parts.test_the_self_supervised_loss_by_hand),
    Mutant(DermObjective, "self_supervised", 'item_RD=out["pin"]', 'item_RD=out["user"]',
        parts.test_the_self_supervised_loss_by_hand),
    Mutant(DermObjective, "forward", "supervised + self", "supervised - self",
        model.test_total_is_linear_in_the_weight_of_the_self_supervised_loss),
    Mutant(DermObjective, "forward", "reciprocal()", "clone()",
        model.test_rare_tasks_weigh_more_up_to_the_cap),
    Mutant(DermObjective, "begin_day", "sketch.fade(self.loss.sketch_keep)", "pass",
        model.test_a_new_day_makes_the_sketches_fade_and_keeps_every_share),
    Mutant(CountMinSketch, "fade", "self.total *= keep", "pass",
        model.test_a_new_day_makes_the_sketches_fade_and_keeps_every_share),
    Mutant(DelayedLabels, "forward", "loss_BT - late_B", "loss_BT + late_B", level),
    Mutant(DelayedLabels, "_weight", "(1 - chance_BT) * rows_BT", "rows_BT", weighted),
    Mutant(DelayedLabels, "chances", "logits_BT - torch", "logits_BT + torch",
        test_delayed.test_calibration_turns_what_was_learned_into_the_truth),
    Mutant(BinaryMetrics, "update", "known_B &= ~late_B", "pass",
        test_training_metrics.test_late_labels_are_no_rows_but_have_arrived),
    Mutant(training_plan, "_phases",
        'Pass(kind="score", ds=today',
        'Pass(kind="train", ds=today',
        parts.test_today_is_scored_before_it_is_trained_on),
)  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_every_mutant_is_killed(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    mutant.install(monkeypatch)
    if isinstance(mutant.owner, type(training_plan)):
        # Tests hold the name of a module's function, not the module.
        held = getattr(mutant.owner, mutant.name)
        function = getattr(mutant.test, "func", mutant.test)
        monkeypatch.setitem(function.__globals__, mutant.name, held)
    with pytest.raises(AssertionError):
        mutant.test()


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_without_a_mutant_its_test_passes(mutant: Mutant) -> None:
    torch.manual_seed(0)
    mutant.test()
