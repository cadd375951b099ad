"""What is read of timelines, and which rows of a sequence predict which actions."""

from dataclasses import dataclass
from typing import Literal

from feature_store.contracts.datasets import Feature

Objective = Literal["next_action", "sasrec", "all_action", "dense_all_action"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingConfig:
    """Which rows of a sequence predict which actions.

    Attributes:
        objective: `next_action`, the newest row predicts the next action; `sasrec`, every row does;
            `all_action`, the newest row predicts what follows within the window;
            `dense_all_action`, random rows each predict one action of the window.
        window_days: K, how far ahead targets lie.
        anchor: where the window of `dense_all_action` begins: at the end of the sequence, or at the
            row that predicts.
        rows: of a sequence that predict, and targets of `all_action`, at most.
        ignored: actions that are not part of a sequence, separated by commas.
        positives: actions that are targets, separated by commas; empty: all but those ignored and
            the weakest one that a data set declares.
    """

    objective: Objective = "dense_all_action"
    window_days: int = 14
    anchor: Literal["sequence_end", "position"] = "sequence_end"
    rows: int = 32
    ignored: str = "impression"
    positives: str = ""

    def __post_init__(self) -> None:
        for name in ("window_days", "rows"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected >= 1, found {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class SequenceInputs:
    """What a family reads of a data set's timelines.

    Attributes:
        read, positive: codes of the actions that sequences hold, and of those that are targets.
        content: the Pin feature that stands for a Pin.
        max_len: newest actions of a sequence.
        max_timeline: newest actions of a user from which sequences and targets are drawn.
        actions, surfaces: how many the data set declares.
    """

    read: tuple[int, ...]
    positive: tuple[int, ...]
    content: Feature
    sampling: SamplingConfig
    max_len: int
    max_timeline: int
    actions: int
    surfaces: int


def names_in(text: str) -> tuple[str, ...]:
    """Names that are separated by commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


@dataclass(frozen=True, kw_only=True, slots=True)
class PairInputs:
    """What makes a pair of a user and a Pin, and what each of it weighs.

    Attributes:
        labels: that are 1, of impressions and of what is told of them later.
        actions: of impressions.
    """

    labels: dict[str, float]
    actions: dict[str, float]
