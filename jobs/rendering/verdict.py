"""The first line of the page: is all well, is something at work, or does somebody have to act?"""

import datetime as dt
from dataclasses import dataclass
from typing import Literal

from jobs.engine.findings import KINDS, Finding
from jobs.rendering.state import HomeState
from jobs.rendering.summary import DaySummary

Tone = Literal["good", "busy", "bad"]

_LOOKED_WITHIN_S = 3600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What the page says first."""

    tone: Tone
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Notice:
    """Something that somebody should know, with what to do.

    Attributes:
        section: of the runbook.
    """

    tone: Tone
    title: str
    text: str
    hint: str = ""
    section: str = ""


_SECTIONS = {
    "store": "dermstorelost",
    "disk": "dermdiskfull",
    "step": "dermstephangs",
    "paused": "dermpaused",
    "late": "dermnotpublished",
}


def verdict(newest: DaySummary, outside: int, state: HomeState, now: dt.datetime | None) -> Verdict:
    """The most urgent thing that can be said.

    Args:
        outside: how many numbers of the newest day are outside their bounds.
        now: the present, for a page that is drawn when it is opened; None for one that is kept.
    """
    found = sorted(state.probed.findings if state.probed else (), key=_urgency)
    if found:
        return Verdict(tone="bad", text=found[0].what)
    attempt = state.of_day(newest.ds)
    if attempt and attempt.state != "running":
        return Verdict(tone="bad", text=f"{attempt.name} {attempt.state}")
    if outside:
        plural = "1 number outside its bound" if outside == 1 else None
        return Verdict(tone="bad", text=plural or f"{outside} numbers outside their bounds")
    if state.repair:
        done = f"{state.repair.done} of {state.repair.steps}"
        return Verdict(tone="busy", text=f"{state.repair.name} under way: {done} steps")
    if not newest.released:
        if attempt:
            return Verdict(tone="busy", text=f"{attempt.name} is running")
        return Verdict(tone="bad", text="not released")
    if now and state.probed and state.probed.age_s(now) > _LOOKED_WITHIN_S:
        return Verdict(tone="bad", text=f"nobody has looked since {_time(state.probed.at)}")
    looked = state.probed.at if state.probed and state.probed.store else ""
    seen = f", the store looked at {_time(looked)}" if looked else ""
    return Verdict(tone="good", text=f"released, every bound kept{seen}")


def notices(state: HomeState) -> tuple[Notice, ...]:
    """What was found, what failed and with what reason, what is being repaired."""
    said = [
        Notice(
            tone="bad",
            title=f.what,
            text=_joined(f"found {f.found}" if f.found else "", f"since {_time(f.since)}"),
            hint=f.hint,
            section=_SECTIONS[f.kind],
        )
        for f in sorted(state.probed.findings if state.probed else (), key=_urgency)
    ]
    said += [
        Notice(
            tone="bad",
            title=f"{a.ds} {a.name} {a.state}",
            text=_joined(a.reason, f"at {_time(a.ended_at)}" if a.ended_at else ""),
            hint=a.hint,
            section=a.step,
        )
        for a in state.failed
    ]
    if repair := state.repair:
        text = (
            f"{repair.first} to {repair.last} are being recomputed, at {repair.now}, "
            f"{repair.done} of {repair.steps} steps done; readers keep what is published until "
            "the end, and no other day begins. Numbers of these days below are of before, or of "
            "half the repair."
        )
        said.append(
            Notice(
                tone="busy",
                title=f"A {repair.name} is under way",
                text=text,
                hint="derm status",
                section=repair.name,
            )
        )
    return tuple(said)


def _urgency(found: Finding) -> int:
    return KINDS.index(found.kind)


def _joined(*parts: str) -> str:
    return ", ".join(p for p in parts if p)


def _time(at: str) -> str:
    return at[:16].replace("T", " ")
