"""The status as terminal tables. Colour only on a terminal, and never with NO_COLOR."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from feature_store.contracts.base import Upstream
from jobs.engine import unfinished
from jobs.engine.attempts import Attempt
from jobs.rendering.day_status import DayStatus, RankedDay, RankerStatus, Status
from jobs.rendering.numbers import Kind, show
from jobs.rendering.summary import phases

_MARKS = {
    "done": ("●", "green"),
    "stale": ("◐", "yellow"),
    "missing": ("○", "dim"),
    "past": ("◌", "dim"),
}
_WIDTH = 128
_NUMBERS: tuple[tuple[str, str, str, Kind], ...] = (
    ("rows", "train", "rows", "count"),
    ("AUC", "train", "auc", "ratio"),
    ("covered", "verify", "coverage_rows_user", "share"),
    ("cosine", "verify", "cosine_user", "cosine"),
    ("users", "publish", "users", "count"),
    ("Pins", "index", "pins", "count"),
)


def print_status(status: Status, console: Console | None = None) -> None:
    """Write the status for people."""
    if console is None:
        console = Console(highlight=False)
        # Cut cells would hide names: let a narrow terminal wrap lines instead.
        console = Console(highlight=False, width=max(console.width, _WIDTH))
    _repair(status, console)
    _findings(status, console)
    _published(status, console)
    if status.store:
        console.print(Text(f"Store      {status.store}", style="dim"))
    if not status.days:
        console.print("\nNo day has run yet. Start with: [bold]derm run --from DAY --to DAY[/]")
        return
    console.print()
    console.print(_steps_table(status))
    console.print(_legend(status.days[-1].upstreams))
    console.print()
    console.print(_numbers_table(status))
    for day in status.days:
        for note in day.summary.notes:
            console.print(f"{day.summary.ds}  [yellow]{escape(note)}[/]")
    _rankers(status, console)
    if status.quarantined:
        console.print(f"\n[yellow]{status.quarantined} rows in quarantine[/]")
    _next(status, console)


def _findings(status: Status, console: Console) -> None:
    """What is wrong now, and the command for it."""
    for found in status.findings:
        line = Text(found.what, style="red")
        line.append(f"  {found.found}" if found.found else "")
        console.print(line)
        console.print(Text(f"  What to do: {found.hint}\n"))


def _repair(status: Status, console: Console) -> None:
    """What is half done, and who may go on."""
    if status.repair is None:
        return
    made, done = status.repair.plan, status.repair.done
    console.print(
        f"[red]A repair is not finished[/]: {done} of {len(made.steps)} steps are done; "
        f"until it is, no step of {made.first} or a later day runs"
    )
    console.print(f"If it does not run: [bold]{unfinished.command(made)}[/]\n")


def _published(status: Status, console: Console) -> None:
    if status.problem:
        console.print(Text(status.problem, style="red"))
        return
    if status.published is None:
        console.print("[bold]Published[/]  nothing yet")
        return
    release = status.published.release
    age = status.published.age_hours(status.now)
    console.print(
        f"[bold]Published[/]  [bold]{release.ds}[/]  release {release.release_id}, {age:.1f} h old"
    )
    for u in release.upstreams:
        console.print(
            f"  {u.upstream}  {show(u.users, 'count')} users  {show(u.pins, 'count')} Pins  "
            f"{u.dim} x {u.dtype}  slot {u.slot}  space {u.space_id}"
        )


def _steps_table(status: Status) -> Table:
    """A row per day, a column per step: one mark, or one per upstream."""
    names = list(dict.fromkeys(s.step.name for d in status.days for s in d.standings))
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
    table.add_column("day", no_wrap=True)
    for name in names:
        table.add_column(name, justify="center", no_wrap=True)
    for day in status.days:
        cells = [
            Text(" ").join(Text(*_MARKS[s.state]) for s in day.standings if s.step.name == name)
            for name in names
        ]
        table.add_row(day.summary.ds, *cells)
    return table


def _legend(upstreams: Sequence[Upstream]) -> Text:
    legend = Text(f"a mark for each of {', '.join(upstreams)}   ", style="dim")
    for state, (mark, style) in _MARKS.items():
        legend.append(mark, style=style).append(f" {state}   ", style="dim")
    return legend


def _numbers_table(status: Status) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
    for name in ("day", "upstream"):
        table.add_column(name, no_wrap=True)
    for name, *_ in _NUMBERS:
        table.add_column(name, justify="right", no_wrap=True)
    columns = [p for p in phases() if p.name in ("train", "infer", "aggregate")]
    for phase in columns:
        table.add_column(phase.name, justify="right", no_wrap=True)
    table.add_column("all steps", justify="right", no_wrap=True)
    table.add_column("published", no_wrap=True)
    for day in status.days:
        for upstream in day.upstreams:
            times = [show(day.summary.seconds(p.steps, upstream), "seconds") for p in columns]
            table.add_row(*_row(day, upstream, times))
    return table


def _row(day: DayStatus, upstream: Upstream, times: list[str]) -> list[str]:
    summary = day.summary
    first = upstream == day.upstreams[0]
    spent = sum(m.duration_s for m in summary.steps.values()) or None
    return [
        summary.ds if first else "",
        upstream,
        *(show(summary.number(s, m, upstream), kind) for _, s, m, kind in _NUMBERS),
        *times,
        show(spent, "seconds") if first else "",
        _released(day) if first else "",
    ]


def _released(day: DayStatus) -> str:
    released = day.summary.released
    return released.finished_at[:16].replace("T", " ") if released else "[yellow]no[/]"


def _attempt(tried: Attempt) -> Text:
    """A step at work, or what ended it and what its message advises."""
    if tried.state == "running":
        return Text(f"  {tried.name} is running, since {tried.started_at[:16]}")
    line = Text(f"  {tried.name} {tried.state}: ", style="red").append(tried.reason, style="")
    return line.append(f"\n  {tried.hint}" if tried.hint else "")


def _rankers(status: Status, console: Console) -> None:
    """A row per ranker and day; nothing of it holds up a day."""
    if not status.rankers:
        return
    console.print()
    if any(ranker.days for ranker in status.rankers):
        console.print(_rankers_table(status.rankers))
    for ranker in status.rankers:
        if not ranker.days and ranker.command:
            line = f"Ranker {ranker.ranker} has learned no day; to begin: {ranker.command}"
            console.print(Text(line, style="dim"))
            continue
        for day in ranker.days:
            for note in day.summary.notes:
                console.print(f"{day.summary.ds}  [yellow]{escape(note)}[/]")
        for day in ranker.due:
            for tried in day.attempts:
                console.print(Text(f"{day.summary.ds}  {ranker.ranker}"))
                console.print(_attempt(tried))
        if ranker.command:
            console.print(
                f"{ranker.ranker} is behind by {len(ranker.due)} days: [bold]{ranker.command}[/]"
            )


def _rankers_table(rankers: Sequence[RankerStatus]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
    for name in ("ranker", "day", "steps"):
        table.add_column(name, no_wrap=True)
    for name in ("rows", "AUC", "worth", "95 % interval", "calibration"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("export", no_wrap=True)
    for ranker in rankers:
        for day in ranker.days:
            table.add_row(*_ranked(ranker, day))
    return table


def _ranked(ranker: RankerStatus, day: RankedDay) -> list[str | Text]:
    def number(step: str, metric: str, kind: Kind) -> str:
        return show(day.summary.number(step, metric, ranker.ranker), kind)

    worth = [number("evaluate", f"worth{x}", "difference") for x in ("", "_low", "_high")]
    measured = day.summary.number("evaluate", "worth", ranker.ranker) is not None
    return [
        ranker.ranker if day is ranker.days[0] else "",
        day.summary.ds,
        Text(" ").join(Text(*_MARKS[s.state]) for s in day.standings),
        number("evaluate", "scored_rows", "count"),
        number("evaluate", "auc", "ratio"),
        worth[0],
        f"{worth[1]} .. {worth[2]}" if measured else "",
        number("calibrate", "calibration", "ratio"),
        "current" if ranker.export.startswith(day.summary.ds) else "",
    ]


def _next(status: Status, console: Console) -> None:
    unfinished = [d for d in status.days if d.open_steps]
    if not unfinished or status.repair:
        return
    console.print()
    for day in unfinished:
        step = day.open_steps[0]
        name = f"{step.step.name} {step.upstream}" if step.upstream else step.step.name
        console.print(
            f"{day.summary.ds}  {name} is [yellow]{step.state}[/]"
            f"  and {len(day.open_steps) - 1} after it"
        )
        for tried in day.attempts:
            console.print(_attempt(tried))
    first, last = unfinished[0].summary.ds, status.days[-1].summary.ds
    console.print(f"Next: [bold]derm run --from {first} --to {last}[/]")
