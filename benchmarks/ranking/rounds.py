"""A contender in a process of its own: a line on its standard input is a round.

Imports nothing but the standard library and NumPy, so that a rival's environment can run it. What
there is to learn from is drawn here, by everybody from the same seed.
"""

import dataclasses
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Work = Callable[[], object]


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """What every contender is made of.

    Attributes:
        rows: of a batch.
        numbers, kinds: numeric and categorical features.
        vocabulary: ids of a categorical feature.
        width: of what is looked up for one.
        dim: of each of four vectors.
        projection: width that the vectors together are projected to; 0: none.
        layers: of the cross network; `hidden`: of the layers after it.
        experts: of them beside each other; more than one are ours alone.
        steps: of a round, of training and of scoring.
    """

    rows: int = 2048
    numbers: int = 80
    kinds: int = 12
    vocabulary: int = 1000
    width: int = 8
    dim: int = 256
    projection: int = 0
    layers: int = 3
    hidden: tuple[int, ...] = (512, 256)
    experts: int = 1
    steps: int = 3
    threads: int = 1

    @classmethod
    def told(cls, text: str) -> "Shape":
        """The shape that another process has written down."""
        fields = json.loads(text)
        return cls(**{**fields, "hidden": tuple(fields["hidden"])})

    def text(self) -> str:
        """For another process."""
        return json.dumps(dataclasses.asdict(self))

    @property
    def vectors(self) -> tuple[str, ...]:
        """The names of the vectors."""
        return tuple(f"{e}_{u}_vector" for u in ("ctr", "cvr") for e in ("user", "pin"))


def batch(shape: Shape) -> dict[str, npt.NDArray[np.generic]]:
    """A batch of random rows: `number_<i>`, `kind_<i>`, the vectors, and `label`."""
    random = np.random.default_rng(0)
    rows = shape.rows
    made: dict[str, npt.NDArray[np.generic]] = {
        f"number_{i}": random.random(rows, np.float32) for i in range(shape.numbers)
    }
    for i in range(shape.kinds):
        made[f"kind_{i}"] = random.integers(1, shape.vocabulary, rows)
    for name in shape.vectors:
        made[name] = random.standard_normal((rows, shape.dim), np.float32)
    made["label"] = (random.random(rows) < 0.1).astype(np.float32)
    return made


def serve(shape: Shape, train: Work, score: Work) -> None:
    """Run a round for each line that comes, and answer with its numbers."""
    for _ in sys.stdin:
        numbers = dict(_measured({"train": train, "score": score}, shape))
        sys.stdout.write(json.dumps(numbers) + "\n")
        sys.stdout.flush()


def _measured(work: Mapping[str, Work], shape: Shape) -> Iterator[tuple[str, float]]:
    for name, step in work.items():
        began = time.process_time()
        for _ in range(shape.steps):
            step()
        yield f"{name}_rows_per_s", shape.rows * shape.steps / (time.process_time() - began)
    yield "peak_mb", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
