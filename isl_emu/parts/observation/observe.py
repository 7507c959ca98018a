"""The process that carries out all observations of a run: it takes images, places them, and brings answers down.

Run as ``python -m isl_emu.parts.observation.observe``. What becomes of an image is written line by line, as it happens.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

from isl_emu.errors import WorkloadError
from isl_emu.linkplan.plan_file import read_plan
from isl_emu.parts.observation.analyst import ask_analyst
from isl_emu.parts.observation.batteries import Batteries
from isl_emu.parts.observation.exposures import Exposure
from isl_emu.parts.observation.parcels import Parcel, Post
from isl_emu.parts.observation.placement import Candidate, Situation, Ways, policy_of, reason
from isl_emu.parts.serving.modelled_state import OBSERVED, Allowance
from isl_emu.routing.forwarding import read_routes
from isl_emu.routing.paths import PathFinder
from isl_emu.runs.clock import RunTimes, run_clock, run_parser
from isl_emu.runs.endpoints import read_endpoints
from isl_emu.runs.folder import RunFolder
from isl_emu.runs.journal import Journal
from isl_emu.runs.loop import run_loop
from isl_emu.scenario.model import Scenario
from isl_emu.scenario.observation import Observation
from isl_emu.scenario.parse import load_scenario
from isl_emu.tables.planned_paths import PlannedPaths
from isl_emu.timebase import EXACT_TIME, Clock
from isl_emu.units import NS_PER_S

EXPOSURES = "exposures.json"  # in a run's journal
JOURNAL = "observed"
ANSWERS = "answers"  # in a run's folder: of real programs, as they came to the ground
RETRY_NS = NS_PER_S  # after an attempt to send that failed


class NotAnsweredError(Exception):
    """A program gave no answer."""


def analyst_log(number: int, satellite: str) -> str:
    """The file in a run's journal with what the program of an observation prints on a satellite."""
    return f"analyst-{number}-{satellite}.log"


def image_file(journal: Path, number: int) -> Path:
    """The real image of an observation, in a run's journal."""
    return journal / f"observation-{number}.image"


@dataclass(frozen=True)
class Due:
    """An image that a satellite is to look at, or is looking at since `begun_ns`.

    Args:
        there_ns: when it is there, by the plan.
        work_ns: that it takes at full pace.
    """

    there_ns: int
    work_ns: int
    begun_ns: int | None = None


@dataclass
class Computer:
    """What a satellite has to look at.

    Args:
        turn: held while it looks at an image; others wait in the order in which they came.
        due: the images that were placed there and are not done, in that order.
    """

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    due: dict[str, Due] = field(default_factory=dict)

    def free_ns(self, now_ns: int) -> int:
        """When all of that is done, one after another at full pace."""
        free_ns = now_ns
        for one in self.due.values():
            begin_ns = max(free_ns, one.there_ns) if one.begun_ns is None else one.begun_ns
            free_ns = max(free_ns, begin_ns + one.work_ns)
        return free_ns


class Observer:
    """Carries out the observations of a run.

    Args:
        ways: what the plan says; times there are since instant 0.
        write: takes records; those with the same `id` are of one image.
    """

    def __init__(
        self,
        scenario: Scenario,
        times: RunTimes,
        clock: Clock,
        ways: Ways,
        batteries: Batteries,
        post: Post,
        allowance: Allowance,
        journal: Path,
        write: Callable[[dict[str, Any]], None],
    ):
        self._scenario, self._times, self._clock, self._ways = scenario, times, clock, ways
        self._batteries, self._post, self._allowance, self._write = batteries, post, allowance, write
        observations = scenario.observation
        self._policies = [policy_of(one.placement, f"observation[{n}]") for n, one in enumerate(observations)]
        self._images = [image_file(journal, n).read_bytes() if one.file else None for n, one in enumerate(observations)]
        self._took_ns = [one.work_ns for one in observations]  # of programs that nobody knows, as the last one took
        names = scenario.satellite_names
        self._computers = {name: Computer() for one in observations for name in one.computers(names)}
        self._threads, self.stopped = ThreadPoolExecutor(max(1, len(self._computers))), Event()
        self._down = {name: asyncio.Lock() for name in names}  # held while something goes down from there
        self._parcels = 0
        self._sending = set[asyncio.Task[None]]()
        self._endpoints, self._answers = read_endpoints(journal), journal.parent / ANSWERS

    async def live(self, image: Exposure) -> None:
        """All of an image's life, from its exposure to its answer on the ground."""
        one = self._scenario.observation[image.observation]
        await self._sleep_until(self._times.t0_ns + image.t_ns)
        situation = self._situation(image, one)
        chosen = self._choose(situation, image.observation)
        ident = f"{image.observation}.{image.number}"
        charge, _ = self._batteries.state(chosen, situation.t_ns) if chosen else (None, 1.0)
        by_name = {candidate.satellite: candidate for candidate in situation.candidates}
        planned_ns = by_name[chosen].answer_ns if chosen else situation.image_ns
        self._write({
            "id": ident, "observation": one.name, "number": image.number, "satellite": image.satellite,
            "latitude_deg": image.latitude_deg, "longitude_deg": image.longitude_deg, "t_exposed_ns": self._now_ns(),
            "analyst": chosen, "reason": reason(situation, chosen), "t_planned_ns": planned_ns,
            "t_image_planned_ns": situation.image_ns, "charge_ratio": charge,
            "sunlit": self._batteries.sunlit(chosen, situation.t_ns) if chosen else None,
            "image_byte": situation.image_byte,
        })  # fmt: skip
        content = self._images[image.observation]
        if chosen is None:
            await self._bring_down(ident, one, image.satellite, Parcel(0, situation.image_byte, content))
            return
        computer = self._computers[chosen]
        computer.due[ident] = Due(by_name[chosen].there_ns or situation.t_ns, situation.work_ns)
        if chosen != image.satellite:
            parcel = Parcel(0, situation.image_byte, content)
            if not await self._deliver(ident, "image", image.satellite, lambda: chosen, lambda _: parcel, one.stall_ns):
                return
        try:
            async with computer.turn:
                answer = await self._look(ident, image.observation, chosen)
        except NotAnsweredError:
            return
        finally:
            del computer.due[ident]
        size_byte = situation.answer_byte if answer is None else len(answer)
        if await self._bring_down(ident, one, chosen, Parcel(0, size_byte, answer)) and answer is not None:
            self._answers.mkdir(exist_ok=True)
            (self._answers / f"{one.name}-{image.number}").write_bytes(answer)

    def _choose(self, situation: Situation, number: int) -> str | None:
        name, known = self._policies[number](situation), [one.satellite for one in situation.candidates]
        if name is not None and name not in known:
            raise WorkloadError(
                f"observation[{number}].placement: returned {name!r}, but it chooses one of the candidates "
                f"({', '.join(known)}) or None; correct the function"
            )
        return name

    def _situation(self, image: Exposure, one: Observation) -> Situation:
        now_ns, scale = image.t_ns, 1.0 if one.file else self._scenario.rate_scale
        content, stations = self._images[image.observation], one.receivers(self._scenario.station_names)
        image_byte = max(1, round((one.size_byte or 0) * scale)) if content is None else len(content)
        answer_byte, work_ns = max(1, round(one.answer_byte * scale)), self._took_ns[image.observation]
        candidates = []
        for name in one.computers(self._scenario.satellite_names):
            if one.placement == "on-board" and name != image.satellite:
                continue
            computer, (charge, pace) = self._computers[name], self._batteries.state(name, now_ns)
            there_ns, free_ns = self._ways.there_ns(image.satellite, name, now_ns, image_byte), computer.free_ns(now_ns)
            answer, spared = None, True
            if there_ns is not None:
                begin_ns = max(there_ns, free_ns)
                end_ns = begin_ns + round(work_ns / (pace or 1.0))
                answer = self._ways.ground_ns(name, stations, end_ns, answer_byte)
                spared = self._batteries.lasts(name, now_ns, begin_ns, end_ns)
            way, sunlit = self._ways.delay(image.satellite, name, now_ns), self._batteries.sunlit(name, now_ns)
            delay_ns, hops = way or (None, None)
            answer_ns = answer[0] if answer else None
            queue = len(computer.due)
            candidates.append(
                Candidate(name, delay_ns, hops, queue, free_ns, there_ns, answer_ns, sunlit, charge, pace, spared)
            )
        down = self._ways.ground_ns(image.satellite, stations, now_ns, image_byte)
        facts = image_byte, answer_byte, work_ns, down[0] if down else None
        return Situation(now_ns, image.satellite, one.name, *facts, tuple(candidates))

    async def _bring_down(self, ident: str, one: Observation, a: str, what: Parcel) -> bool:
        """Bring an answer, or an image, to the station that has it first by the plan: whether all of it is there."""
        stations, parcels = one.receivers(self._scenario.station_names), dict[str, Parcel]()

        def earliest() -> str | None:
            now_ns = self._now_ns()
            found = self._ways.ground_ns(a, stations, now_ns, what.size_byte)
            if found:
                return found[1]
            nexts = [(at_ns, name) for name in stations if (at_ns := self._ways.next_ns(a, name, now_ns)) is not None]
            return min(nexts)[1] if nexts else None  # as much of it as this run allows

        def parcel(station: str) -> Parcel:
            return parcels.setdefault(station, Parcel(0, what.size_byte, what.content))

        async with self._down[a]:  # one after another, in the order in which they were ready
            return await self._deliver(ident, "answer", a, earliest, parcel, one.stall_ns)

    async def _deliver(
        self,
        ident: str,
        kind: str,
        a: str,
        choose: Callable[[], str | None],
        parcel_for: Callable[[str], Parcel],
        stall_ns: int,
    ) -> bool:
        """Send a parcel until all of it is there: whether it is. It waits while the plan has no path."""
        attempts = 0
        while (b := choose()) is not None and (begin_ns := self._ways.next_ns(a, b, self._now_ns())) is not None:
            await self._sleep_until(self._times.t0_ns + begin_ns)
            parcel = parcel_for(b)
            if not parcel.number:
                self._parcels += 1
                parcel.number = self._parcels
            if not attempts:
                self._write({"id": ident, f"t_{kind}_sent_ns": self._now_ns()})
            attempts += 1
            sending = asyncio.create_task(self._post.attempt(a, b, parcel, stall_ns))
            self._sending.add(sending)
            sending.add_done_callback(self._sending.discard)
            there = asyncio.create_task(parcel.there.wait())
            await asyncio.wait({sending, there}, return_when=asyncio.FIRST_COMPLETED)
            if parcel.t_there_ns is not None:
                done = {"to": b, "size_byte": parcel.size_byte, "wire_byte": parcel.wire_byte, "attempts": attempts}
                t_ns = parcel.t_there_ns - self._times.t0_ns
                self._write({"id": ident, f"t_{kind}_there_ns": t_ns, **{f"{kind}_{key}": done[key] for key in done}})
                return True
            there.cancel()
            sending.result()  # what went wrong beside the network
            await self._sleep_until(self._clock.now_ns() + RETRY_NS)
        return False

    async def _look(self, ident: str, number: int, name: str) -> bytes | None:
        """Look at an image on a satellite: the answer, if a program gave one."""
        one, begun_ns = self._scenario.observation[number], self._now_ns()
        due = self._computers[name].due
        due[ident] = replace(due[ident], begun_ns=begun_ns)
        self._write({"id": ident, "t_begun_ns": begun_ns})
        answer = None
        if one.command:
            content = self._images[number]
            assert content is not None, "the scenario was checked: a command has a file"
            try:
                answer = await ask_analyst(self._endpoints[name].netns, number, content)
            except (OSError, asyncio.IncompleteReadError, WorkloadError) as error:
                told = f"{str(error) or 'the program has gone'}; see journal/{analyst_log(number, name)}"
                self._write({"id": ident, "error": told})
                raise NotAnsweredError from error
        if one.states_time and (one.command is None or EXACT_TIME in os.environ):
            work = partial(self._allowance.work, name, one.work_ns, self._clock, self.stopped)
            if await asyncio.get_running_loop().run_in_executor(self._threads, work):
                raise asyncio.CancelledError  # the run has ended
        done_ns = self._now_ns()
        if not one.states_time:
            self._took_ns[number] = done_ns - begun_ns
        self._write({"id": ident, "t_analysed_ns": done_ns})
        return answer

    async def _sleep_until(self, t_ns: int) -> None:
        while self._clock.now_ns() < t_ns:
            await asyncio.sleep(self._clock.timeout_s(t_ns))

    def _now_ns(self) -> int:
        return self._clock.now_ns() - self._times.t0_ns


async def observe(observer: Observer, images: list[Exposure], clock: Clock, times: RunTimes) -> None:
    """Take all images, and see to each until the run ends, or SIGTERM comes."""
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    lives = [asyncio.create_task(observer.live(image)) for image in images]
    try:
        while not over.is_set() and clock.now_ns() < times.until_ns:
            waiting = asyncio.create_task(over.wait())
            left = [life for life in lives if not life.done()]
            await asyncio.wait(
                [*left, waiting], timeout=clock.timeout_s(times.until_ns), return_when=asyncio.FIRST_COMPLETED
            )
            waiting.cancel()
            for life in lives:
                if life.done():
                    life.result()  # what went wrong ends the process, and with it the run
            lives = left
    finally:
        observer.stopped.set()


def main() -> None:
    """Carry out the observations of a run."""
    parser = run_parser("isl_emu.parts.observation.observe", __doc__)
    options = parser.parse_args()
    folder, clock, times = RunFolder(options.journal.parent), run_clock(options.journal), RunTimes.of(options)
    plan, scenario = read_plan(folder.plan), load_scenario(folder.scenario)
    finder = PathFinder(plan, read_routes(folder.routes, plan))
    ways = Ways(PlannedPaths(plan, finder, {}), plan.grid)
    images = [Exposure(**one) for one in json.loads((options.journal / EXPOSURES).read_text())]
    names = scenario.satellite_names
    computers = list(dict.fromkeys(name for one in scenario.observation for name in one.computers(names)))
    endpoints = read_endpoints(options.journal)

    async def run(write: Callable[[dict[str, Any]], None]) -> None:
        post = Post(endpoints, clock)
        await post.open([*computers, *scenario.station_names])
        batteries = Batteries(scenario, plan.grid, computers, options.journal)
        allowance = Allowance.of(options.journal / OBSERVED)
        observer = Observer(scenario, times, clock, ways, batteries, post, allowance, options.journal, write)
        await observe(observer, images, clock, times)

    with Journal(options.journal / f"{JOURNAL}.jsonl") as journal:
        run_loop(run(journal.append))


if __name__ == "__main__":
    main()
