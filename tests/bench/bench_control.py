"""The control plane beside a bare insert, at a million jobs, ten thousand live ones, and a thousand streams.

Everything over HTTP is a real uvicorn process with all of its defaults (reconciler, audit log, outbox, log lines; its
cluster does not answer), asked by clients on the same machine. PostgreSQL and SQLite run with their default durability.
"""

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from http1 import Met
from ingest import ingest
from listeners import LISTENERS, hear
from live import reconcile
from million import JOBS, fill, lists
from plane import STORES, Plane, database, serving
from submissions import saturated, sustained

APP, BARE = "api.app:create_app", "bare_insert:create_app"
ROUNDS = 3
RATES = {"postgres": 200.0, "sqlite": 120.0}
LIVE = (100, 1_000, 10_000)
PLANS = Path(".make/bench-control-plans.txt")

missed = 0


def row(what: str, figure: str, bar: str = "", held: bool | None = None) -> None:
    """One line of the table; `held` says whether the bar was reached."""
    global missed
    missed += held is False
    verdict = "" if held is None else "yes" if held else "NO"
    print(f"{what:46}{figure:>34}   {bar:22}{verdict}", flush=True)


def spread(values: list[float], digits: int = 0) -> str:
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}..{max(values):.{digits}f})"


def over(figures: list[Met], q: float) -> list[float]:
    return [met.ms(q) for met in figures]


def submissions(store: str) -> None:
    """Bare and Fewstep in turn, so that both meet the same neighbours."""
    bare, ours, steady_bare, steady = [], [], [], []
    with database(store) as (url, home):
        for _ in range(ROUNDS):
            with serving(BARE, url, home) as plane:
                bare.append(saturated(plane, ""))
                steady_bare.append(sustained(plane, "", RATES[store]))
            with serving(APP, url, home) as plane:
                ours.append(saturated(plane, plane.key))
                steady.append(sustained(plane, plane.key, RATES[store]))
    assert not any(met.others for met in bare + ours + steady_bare + steady), "answers that nobody expected"
    rates = [met.rate for met in ours]
    ratios = [mine.rate / other.rate for mine, other in zip(ours, bare, strict=True)]
    row(f"{store}: bare insert, saturated", f"{spread([met.rate for met in bare])}/s")
    row(
        f"{store}: submissions, saturated",
        f"{spread(rates)}/s",
        f">= {RATES[store]:.0f}/s",
        median(rates) >= RATES[store],
    )
    row(f"{store}: submissions / bare insert", spread(ratios, 2), ">= 0.5", median(ratios) >= 0.5)
    row(f"{store}: p50 and p99, saturated", f"{spread(over(ours, 0.5))} {spread(over(ours, 0.99))} ms")
    p99 = over(steady, 0.99)
    held = median(p99) < 100 if store == "postgres" else None
    row(f"{store}: p50 at {RATES[store]:.0f}/s, open loop", f"{spread(over(steady, 0.5))} ms")
    row(f"{store}: p99 of bare inserts at that rate", f"{spread(over(steady_bare, 0.99))} ms")
    row(
        f"{store}: p99 at {RATES[store]:.0f}/s, open loop",
        f"{spread(p99)} ms",
        "< 100 ms" if held is not None else "",
        held,
    )


def on_plane(store: str, what: Callable[[Plane], None]) -> None:
    with database(store) as (url, home), serving(APP, url, home) as plane:
        what(plane)


def points(store: str) -> None:
    def measure(plane: Plane) -> None:
        for steps in (500, 50):
            rate, p99 = asyncio.run(ingest(plane, steps))
            bar = (">= 8000/s", rate >= 8000) if steps == 500 else ("", None)
            row(f"{store}: points, {steps} steps of 6 to a report", f"{rate:.0f}/s, p99 of a report {p99:.0f} ms", *bar)

    on_plane(store, measure)


def streams(store: str) -> None:
    def measure(plane: Plane) -> None:
        heard = asyncio.run(hear(plane))
        figure = f"p50 {heard.p50:.0f}, p99 {heard.p99:.0f} ms"
        row(
            f"{store}: {LISTENERS} streams, commit to receipt", figure, "all received", heard.received == heard.expected
        )
        figure = f"{heard.kilobytes:.0f} KB, {100 * heard.cpu:.0f} % of a core"
        row(f"{store}: memory of a stream, CPU of all", figure)

    on_plane(store, measure)


def live(store: str) -> None:
    for count in LIVE if store == "postgres" else LIVE[-1:]:
        with database(store) as (url, home):
            seen = asyncio.run(reconcile(url, home, count))
        figure = f"{seen.lag:.2f} s behind, {seen.cost:.3f} ms/job/s"
        row(f"{store}: {count} live jobs", figure, "< 5 s behind", seen.lag < 5)


def million(store: str) -> None:
    with database(store) as (url, home):
        seconds = asyncio.run(fill(url))
        print(f"{store}: 100 of {JOBS} jobs by (filled in {seconds:.0f} s; p50, p99 over HTTP; what is read)")
        with serving(APP, url, home, reconcile_in_process=False) as plane:
            found = asyncio.run(lists(plane))
    with PLANS.open("a") as file:
        for one in found:
            file.write(f"--- {store}: {one.filters}\n{one.plan}\n\n")
            print(f"  {one.filters:60} {one.rows:4} rows {one.p50:6.1f} {one.p99:6.1f} ms  {one.reads}")
    worst = max(found, key=lambda one: one.p99)
    row(f"{store}: slowest list ({worst.filters})"[:70], f"p99 {worst.p99:.1f} ms", "< 50 ms", worst.p99 < 50)


PARTS = {"submissions": submissions, "points": points, "streams": streams, "live": live, "million": million}


def main() -> int:
    asked = sys.argv[1:]
    PLANS.parent.mkdir(exist_ok=True)
    PLANS.unlink(missing_ok=True)
    started = time.monotonic()
    for name, part in PARTS.items():
        for store in STORES:
            if (not asked or name in asked) and (store in asked or not set(STORES) & set(asked)):
                part(store)
    print(f"{time.monotonic() - started:.0f} s; {missed} bars missed; plans in {PLANS}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
