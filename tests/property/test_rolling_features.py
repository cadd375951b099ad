"""Rolling features of real data sets against a plain loop over the log."""

import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.datasets.rolling import Rolling, known_entities

TODAY = 10
EVENTS = st.lists(
    st.tuples(
        st.integers(0, TODAY + 2),  # day
        st.sampled_from("abc"),
        st.sampled_from("xyz"),
        st.integers(0, 1),
        st.integers(0, 1),
    ),
    max_size=40,
)
ROLLING = Rolling(label="click", days=4, max_len=3)


def frame(events: list[tuple[int, str, str, int, int]]) -> pd.DataFrame:
    log = pd.DataFrame(
        sorted(events, key=lambda e: e[0]), columns=["day", "user_id", "pin_id", "click", "buy"]
    )
    return log.assign(action=[f"{row.click}{row.buy}" for row in log.itertuples()])


@settings(deadline=None)
@given(events=EVENTS)
def test_only_the_window_before_the_day_is_seen(
    events: list[tuple[int, str, str, int, int]],
) -> None:
    log = frame(events)
    for scope in ("user", "pin"):
        known = {getattr(r, f"{scope}_id") for r in log.itertuples() if r.day <= TODAY}
        assert known_entities(log, scope, TODAY).tolist() == sorted(known)
    ids = known_entities(log, "user", TODAY)
    found = {k: v.to_pylist() for k, v in ROLLING.columns(log, ids, TODAY).items()}
    past = [row for row in log.itertuples() if TODAY - 4 <= row.day < TODAY and row.click]
    for place, user in enumerate(ids):
        clicked = [row for row in past if row.user_id == user][-3:]
        assert found["engaged_pins"][place] == [row.pin_id for row in clicked]
        assert found["engaged_actions"][place] == [row.action for row in clicked]
    assert sorted(f.name for f in ROLLING.features()) == sorted(found)
