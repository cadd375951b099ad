"""How much does the type of the pool's state cost? Error of a moving average against float64.

    .venv/bin/python -m benchmarks.pipeline.float_state --entities 2000 --dim 256

Unit vectors that drift a little each day, w = 0.8. Reports the mean of 1 - cosine and the mean
relative bias of the norm after 90 and 365 daily updates. `stored` rounds only when the state is
written (arithmetic in float32); `arithmetic` does everything in the narrow type.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from benchmarks import harness

Array = npt.NDArray
W = 0.8


def to_bfloat16(x: Array) -> Array:
    """Round float32 to the nearest bfloat16, ties to even; the result is a float32 array."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (rounded & np.uint32(0xFFFF0000)).view(np.float32)


def truncate_bfloat16(x: Array) -> Array:
    """Cut float32 to bfloat16 by dropping bits, as a careless cast does."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return (bits & np.uint32(0xFFFF0000)).view(np.float32)


def float32_step(past: Array, daily: Array) -> Array:
    w = np.float32(W)
    return past.astype(np.float32) * w + daily.astype(np.float32) * (np.float32(1) - w)


def float16_step(past: Array, daily: Array) -> Array:
    w = np.float16(W)
    return past.astype(np.float16) * w + daily.astype(np.float16) * (np.float16(1) - w)


def float16_literal(past: Array, daily: Array) -> Array:
    return past.astype(np.float16) * np.float16(0.8) + daily.astype(np.float16) * np.float16(0.2)


def kept(cast: Callable[[Array], Array]) -> Callable[[Array, Array], Array]:
    """Arithmetic in float32, the state rounded by `cast` each day."""
    return lambda past, daily: cast(float32_step(past.astype(np.float32), daily))


STATES: dict[str, Callable[[Array, Array], Array]] = {
    "float32": float32_step,
    "float16 stored": kept(lambda x: x.astype(np.float16)),
    "bfloat16 stored": kept(to_bfloat16),
    "bfloat16 truncated": kept(truncate_bfloat16),
    "float16 arithmetic": float16_step,
    "float16 arithmetic, literal 0.2": float16_literal,
}


def measure(entities: int, dim: int, days: tuple[int, ...], seed: int) -> list[dict[str, object]]:
    """One row per state and day."""
    rng = np.random.default_rng(seed)
    daily = _unit(rng.standard_normal((entities, dim)))
    exact = daily.copy()
    states = {name: step(daily, daily) for name, step in STATES.items()}
    rows: list[dict[str, object]] = []
    for day in range(1, max(days) + 1):
        daily = _unit(daily + 0.1 * rng.standard_normal((entities, dim)) / np.sqrt(dim))
        exact = exact * W + daily * (1 - W)
        states = {name: STATES[name](state, daily) for name, state in states.items()}
        if day in days:
            rows += [{"days": day, "state": n, **_error(s, exact)} for n, s in states.items()]
    return rows


def _unit(x: Array) -> Array:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def _error(state: Array, exact: Array) -> dict[str, float]:
    wide = state.astype(np.float64)
    norms, truth = np.linalg.norm(wide, axis=1), np.linalg.norm(exact, axis=1)
    # 1 - cosine of nearly equal vectors: half the squared distance of the unit vectors.
    gap = wide / norms[:, None] - exact / truth[:, None]
    return {
        "cosine_error": float((gap**2).sum(axis=1).mean() / 2),
        "norm_bias": float((norms / truth - 1).mean()),
    }


def main() -> None:
    """Parse, measure, print a Markdown table and the report."""
    parser = harness.arguments(__doc__, rounds=None)
    parser.add_argument("--entities", type=int, default=2000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rows = measure(args.entities, args.dim, (90, 365), args.seed)
    print("| days | state | mean 1 - cosine | norm bias |\n|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['days']} | {row['state']} | {row['cosine_error']:.1e} "
            f"| {row['norm_bias']:+.1e} |"
        )
    harness.report({"states": rows}, args)


if __name__ == "__main__":
    main()
