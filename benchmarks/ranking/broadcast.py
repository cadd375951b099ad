"""What it is worth to encode each user of a request once: by candidates per user.

    python -m benchmarks.ranking.broadcast --json broadcast.json

A unified ranker of the market scores the same rows twice: `row by row` every row brings its user's
features, history and all, and they are encoded for it; `once` finds the distinct users first, and
encodes those. One thread. `speedup` is of scoring, `training_speedup` of a pass forward and back;
`encodes` counts the users that ran through the encoder, `unique` those that there are; and
`largest_difference` is that of any probability between both.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable

import torch

from benchmarks import harness
from benchmarks.ranking.requests import new_ranker, rows_of
from models.rankers.unified.requests import Requests

CANDIDATES = (1, 8, 32, 128, 512)


def main() -> None:
    """Measure, and write the report."""
    parser = harness.arguments(__doc__, rounds=3)
    parser.add_argument("--users", type=int, default=2, help="of a request; default: %(default)s")
    parser.add_argument("--history", type=int, default=256, help="elements of each")
    parser.add_argument("--width", type=int, default=32, help="of an element")
    parser.add_argument("--candidates", type=int, nargs="*", default=list(CANDIDATES))
    args = parser.parse_args()
    torch.set_num_threads(1)
    ranker = new_ranker(args.history, args.width)
    requests = Requests(ranker.inputs, ranker.config.max_users)
    learned = list(ranker.trunk.parameters())
    seen: list[int] = []
    ranker.trunk.user.register_forward_hook(lambda _, __, out: seen.append(len(out)))
    report: dict[str, dict[str, float]] = {
        name: {}
        for name in ("speedup", "training_speedup", "encodes", "unique", "largest_difference")
    }
    seconds: dict[str, harness.Numbers] = {}
    for candidates in args.candidates:
        rows = rows_of(ranker, args.users, candidates)

        def naive(rows: dict[str, torch.Tensor] = rows) -> torch.Tensor:
            found: torch.Tensor = ranker(rows)["logits"]
            return found

        def once(rows: dict[str, torch.Tensor] = rows) -> torch.Tensor:
            found: torch.Tensor = ranker(requests.once(rows))["logits"]
            return found

        ways: dict[str, Callable[[], torch.Tensor]] = {"row by row": naive, "once": once}
        found = harness.summary(
            harness.alternate(
                {
                    f"{name} {kind}": harness.timed(work)
                    for name, way in ways.items()
                    for kind, work in (
                        ("scored", _scored(way)),
                        ("trained", _trained(way, learned)),
                    )
                },
                args.rounds,
            )
        )
        seen.clear()
        with torch.no_grad():
            gap = torch.sigmoid(once()) - torch.sigmoid(naive())
        key = str(candidates)
        for name, kind in (("speedup", "scored"), ("training_speedup", "trained")):
            report[name][key] = (
                found[f"row by row {kind}"]["cpu_s"] / found[f"once {kind}"]["cpu_s"]
            )
        report["encodes"][key], report["unique"][key] = seen[0], args.users
        report["largest_difference"][key] = float(gap.abs().max())
        seconds |= {f"{name}, {candidates} candidates": n for name, n in found.items()}
    sizes = {"users": args.users, "history": args.history, "width": args.width}
    harness.report({**report, "contenders": seconds, **sizes}, args)


def _scored(way: Callable[[], torch.Tensor]) -> Callable[[], object]:
    def work() -> object:
        with torch.no_grad():
            return way()

    return work


def _trained(
    way: Callable[[], torch.Tensor], learned: list[torch.nn.Parameter]
) -> Callable[[], object]:
    def work() -> object:
        return torch.autograd.grad(way().square().mean(), learned)

    return work


if __name__ == "__main__":
    main()
