"""The chapter of a report on questions: what was asked and answered, how long that took, and where the time went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from isl_emu.linkplan.plan import LinkPlan
from isl_emu.parts.finished_run import ConcludedRun, Rows
from isl_emu.parts.questions.figures import completed, measured, slices
from isl_emu.parts.questions.results import (
    ending,
    latency_rows,
    levels_kept,
    path_text,
    prompts_read,
    warm_up_text,
    way_facts,
)
from isl_emu.runs.journal import INCIDENTS_JOURNAL, REQUESTS_JOURNAL
from isl_emu.show.chapter import Card, Chapter, DataTable, Picture
from isl_emu.show.style import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    QUIET,
    SKY,
    VERMILION,
    calm,
    dots,
    line_style,
    new_figure,
    plain_figures,
    plan_axis,
)
from isl_emu.tables.planned_paths import HopDelays
from isl_emu.tables.text import Distribution, counted, share, time_text
from isl_emu.units import NS_PER_MS, NS_PER_S

CARDS = 20  # questions shown with their answers
SLICES_SHOWN = 60  # of a table
BARS = 30  # questions in the picture of where the time went
LONGEST_ANSWER = 1200  # characters
STEPS = 4000  # of a distribution; more look no different
STAGES = ("up", "lasers", "queue", "prefill", "decode", "down")


def questions_chapter(run: ConcludedRun) -> Iterator[Chapter]:
    """Nothing for a run without questions."""
    everything = run.rows(REQUESTS_JOURNAL)
    if not everything:
        return
    requests = measured(everything)
    done = completed(requests)
    outcomes = ", ".join(f"{count} {name}" for name, count in Counter(row["outcome"] for row in requests).most_common())
    items: list[str | Picture | DataTable | Card] = [
        f"{counted(len(requests), 'question')}: {outcomes}. "
        + ". ".join((*levels_kept(requests, run.scenario.questions), *prompts_read(requests, run.scenario)))
    ]
    if len(everything) > len(requests):
        items.append(f"{warm_up_text(len(everything) - len(requests), run.scenario)}.")
    if done:
        items += [
            DataTable(
                f"Latencies of {counted(len(done), 'completed answer')}, by the definitions of the field",
                ("", "", "p50", "p90", "p95", "p99"),
                latency_rows(done),
                left=2,
            ),
            *_pictures(run, requests, done),
        ]
    if run.scenario.questions and (found := slices(everything, run.scenario.questions)):
        items.append(_slices_table(found))
    stations = set(run.scenario.station_names)
    items += [_card(row, stations) for row in requests[:CARDS]]
    if len(requests) > CARDS:
        items.append(f"{len(requests) - CARDS} further questions are in requests.parquet.")
    yield Chapter("Questions and answers", items)


def _slices_table(found: Rows) -> DataTable:
    """Figures of each slice of time, the first ones."""

    def line(row: Mapping[str, Any]) -> tuple[str, ...]:
        times = (time_text(row[key]) for key in ("ttft_p50_ns", "ttft_p99_ns", "e2e_p50_ns", "e2e_p99_ns"))
        span = f"{row['t_ns'] / NS_PER_S:g} to {row['t_end_ns'] / NS_PER_S:g} s"
        counts = str(row["requests"]), str(row["completed"])
        return (f"{span}{', warm-up' if row['warm_up'] else ''}", *counts, *times, f"{row['output_tokens_per_s']:.1f}")

    return DataTable(
        f"Slices of time{f', the first {SLICES_SHOWN} of {len(found)}' if len(found) > SLICES_SHOWN else ''}; "
        "serving_slices.parquet has all",
        ("", "questions", "completed", "TTFT p50", "p99", "E2E p50", "p99", "tokens/s"),
        [line(row) for row in found[:SLICES_SHOWN]],
        left=1,
    )


def _card(row: Mapping[str, Any], stations: set[str]) -> Card:
    way = path_text(row["path_at_send"], stations) if row["path_at_send"] else f"{row['station']} → {row['satellite']}"
    answer = " ".join((row["answer"] or "").split())
    if len(answer) > LONGEST_ANSWER:
        answer = f"{answer[:LONGEST_ANSWER]} ..."
    lines = (("Q", row["question"] or ""), ("A", answer))
    facts = way_facts(row) if row["path_at_send"] else ""
    return Card(f"{row['id']} · {way}", [line for line in lines if line[1]], f"{facts} · {ending(row)}".strip(" ·"))


def _pictures(run: ConcludedRun, requests: Rows, done: Rows) -> Iterator[Picture]:
    spread = {key: Distribution.of(row[f"{key}_ns"] for row in done) for key in ("ttft", "e2e")}
    gaps = Distribution.of(gap for row in done for gap in row["itl_ns"] or ())
    changed = sum(len(row["handover_itl_ns"] or ()) for row in done)
    incidents = run.rows(INCIDENTS_JOURNAL)
    yield Picture(
        "latency",
        partial(_draw_latency, done),
        "How many answers (tokens, for ITL) took at most so long: TTFT, time to first token; ITL, gap between two "
        "tokens; E2E, from question out to answer in.",
        f"Distributions of {counted(len(done), 'answer')}. "
        + " ".join(
            f"{name}: median {time_text(one.p50)}, 95th percentile {time_text(one.p95)}."
            for name, one in (("TTFT", spread["ttft"]), ("ITL", gaps), ("E2E", spread["e2e"]))
        ),
    )
    stages = stages_ns(run.plan, done[:BARS])
    if stages is not None:
        of_all = stages.sum(axis=0) / max(stages.sum(), 1)
        shown = f"the first {BARS} of {len(done)} answers" if len(done) > BARS else "each answer"
        yield Picture(
            "where-time-went",
            partial(_draw_stages, [row["id"] for row in done[:BARS]], stages),
            f"Where the time of {shown} went, by question. Up, lasers and down are the planned propagation, twice: for "
            "the connection and for the question. Queue is what is left of the time in the network: sending, queues on "
            "links, waiting for the server. Prefill and decode are the server's own times.",
            "Stacked bars. All together: "
            + ", ".join(f"{name} {share(float(part))}" for name, part in zip(STAGES, of_all, strict=True))
            + ".",
        )
    yield Picture(
        "answers-over-time",
        partial(_draw_over_time, run, requests, done, incidents),
        "Above: TTFT and E2E by when the question was sent; crosses are questions that were not answered whole. Below: "
        "the gaps between tokens as they came; diamonds are gaps during which the planned path changed, red areas "
        "planned faults, grey lines what died or was changed by hand.",
        f"Latencies over time; {counted(changed, 'gap')} during a change of the path, "
        f"{counted(len(requests) - len(done), 'question')} without a whole answer, "
        f"{counted(len(incidents), 'incident')}.",
    )


def stages_ns(plan: LinkPlan, done: Rows) -> np.ndarray | None:
    """How the E2E latency of answers divides into stages, ns, float64, shape (answers, 6), as `STAGES` says.

    Propagation is that of the path at the time of the question, twice: a connection takes one round trip, the question
    and its first token another. What is left of the network's time is in the queue; where paths became shorter
    meanwhile and nothing is left, it is 0. None if the servers of some told no times.
    """
    needed = ("network_ns", "planned_rtt_at_send_ns", "t_last_send_ns")
    if any(row[key] is None for row in done for key in needed):
        return None
    delays, rows = HopDelays(plan), []
    for row in done:
        hops_ns = delays.of(row["path_at_send"], row["t_last_send_ns"])
        up_ns, lasers_ns, rtt_ns = hops_ns[0], sum(hops_ns[1:]), row["planned_rtt_at_send_ns"]
        down_ns = min(up_ns, rtt_ns - sum(hops_ns))
        lasers_ns += rtt_ns - sum(hops_ns) - down_ns
        queue_ns = max(0, row["network_ns"] - 2 * rtt_ns)
        server = row["server_prompt_ns"], row["server_predict_ns"]
        rows.append((2 * up_ns, 2 * lasers_ns, queue_ns, *server, 2 * down_ns))
    return np.array(rows, dtype=np.float64)


def _draw_latency(done: Rows) -> Figure:
    figure = new_figure(2.3)
    panels = figure.subplots(1, 3, sharey=True)
    found = {
        "TTFT": [row["ttft_ns"] for row in done],
        "ITL": [gap for row in done for gap in row["itl_ns"] or ()],
        "E2E": [row["e2e_ns"] for row in done],
    }
    for number, (axes, (name, values)) in enumerate(zip(panels, found.items(), strict=True)):
        known = np.sort(np.array([value for value in values if value is not None], dtype=np.float64)) / NS_PER_MS
        calm(axes)
        axes.set_xlabel(f"{name} (ms)")
        if len(known):
            if len(known) > STEPS:
                known = np.quantile(known, np.linspace(0, 1, STEPS))
            at_most = np.arange(1, len(known) + 1) / len(known)
            color = line_style(number)["color"]
            axes.step([known[0], *known], [0, *at_most], where="post", color=color)
            axes.plot(known[-1], 1, ".", color=color)
            if known[-1] > 100 * max(known[0], 1e-3):
                axes.set_xscale("log")
                plain_figures(axes.xaxis)
            elif known[-1] - known[0] < 0.02 * known[-1]:  # all alike, which is not to look like a spread
                axes.set_xlim(0.9 * known[0], 1.1 * known[-1])
    panels[0].set_ylabel("share of all")
    panels[0].set_ylim(0, 1.03)
    return figure


def _draw_stages(ids: Sequence[int], stages: np.ndarray) -> Figure:
    figure = new_figure(1.2 + 0.16 * max(len(ids), 4))
    axes, left_ms = figure.subplots(), np.zeros(len(ids))
    looks = ((ORANGE, ""), (GREEN, ""), (VERMILION, "xxxx"), (SKY, ""), (BLUE, ""), (PURPLE, "////"))
    for name, (color, hatch), span in zip(STAGES, looks, stages.T / NS_PER_MS, strict=True):
        axes.barh(
            range(len(ids)), span, left=left_ms, height=0.75, color=color, hatch=hatch, label=name,
            edgecolor="white", linewidth=0.3,
        )  # fmt: skip
        left_ms += span
    calm(axes)
    axes.grid(False, axis="y")
    axes.set_yticks(range(len(ids)), [str(one) for one in ids])
    axes.set_ylim(len(ids) - 0.4, -0.6)
    axes.set(xlabel="time since the question was sent (ms)", ylabel="question")
    figure.legend(loc="outside upper center", ncols=len(STAGES))
    return figure


def _draw_over_time(run: ConcludedRun, requests: Rows, done: Rows, incidents: Rows) -> Figure:
    figure = new_figure(4.0)
    top, bottom = figure.subplots(2, 1, sharex=True)
    sent_s = np.array([row["t_send_ns"] for row in done]) / NS_PER_S
    for key, mark, color in (("ttft", "o", BLUE), ("e2e", "s", GREEN)):
        values = np.array([np.nan if row[f"{key}_ns"] is None else row[f"{key}_ns"] for row in done]) / NS_PER_S
        dots(top, sent_s, values, mark, color, key.upper())
    cut = [row for row in requests if row["outcome"] != "completed"]
    failed = [row["t_due_ns"] if row["t_send_ns"] is None else row["t_send_ns"] for row in cut]
    if failed:
        at_s = np.array(failed) / NS_PER_S
        top.plot(at_s, np.zeros(len(at_s)), "x", color=VERMILION, label="no whole answer", clip_on=False, zorder=5)
    steady, changing = token_gaps(done)
    dots(bottom, steady[:, 0] / NS_PER_S, steady[:, 1] / NS_PER_MS, ".", BLUE, "ITL")
    if len(changing):
        dots(bottom, changing[:, 0] / NS_PER_S, changing[:, 1] / NS_PER_MS, "D", ORANGE, "while the path changed")
    top.set_ylabel("latency (s)")
    bottom.set_ylabel("ITL (ms)")
    events, step_s = run.plan.faults, run.plan.grid.step_ns / NS_PER_S
    faults = np.stack([events.k_from, events.k_until - events.k_from], axis=1) * step_s  # from when, and for how long
    for number, axes in enumerate((top, bottom)):
        calm(axes)
        highest = max((float(np.nanmax(line.get_ydata())) for line in axes.lines), default=0.0)
        axes.set_ylim(0, 1.1 * highest or 1.0)
        if len(faults):
            whole = axes.get_xaxis_transform()
            axes.broken_barh(faults, (0, 1), transform=whole, color=VERMILION, alpha=0.12, linewidth=0, label="fault")
        for row in incidents:
            axes.axvline(row["t_ns"] / NS_PER_S, color=QUIET, linewidth=0.8, linestyle="--", zorder=1)
        if axes.lines:
            axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), markerscale=1.0 + number)
    plan_axis(bottom, run.plan)
    return figure


def token_gaps(done: Rows) -> tuple[np.ndarray, np.ndarray]:
    """When tokens came and how long after the one before, ns: those on a steady path, and those while it changed.

    Returns:
        float64, each of shape (tokens, 2).
    """
    steady: list[tuple[int, int]] = []
    changing: list[tuple[int, int]] = []
    for row in done:
        at_change, gaps = set(row.get("t_handover_itl_ns") or ()), row["itl_ns"] or ()
        for t_ns, gap_ns in zip(list(accumulate(gaps, initial=row["t_first_ns"] or 0))[1:], gaps, strict=True):
            (changing if t_ns in at_change else steady).append((t_ns, gap_ns))
    return np.array(steady, dtype=np.float64).reshape(-1, 2), np.array(changing, dtype=np.float64).reshape(-1, 2)
