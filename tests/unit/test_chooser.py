"""Who is asked: what a station knows is put before the policy, and the policy chooses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from isl_emu.errors import ScenarioError, WorkloadError
from isl_emu.parts.questions.asking import Asking, read_asking
from isl_emu.parts.questions.chooser import Chooser, Heard, Queues, queue_of
from isl_emu.parts.questions.policies import Situation, policy_of
from isl_emu.parts.questions.requests import PlannedRequest
from isl_emu.parts.serving.who_serves import ServingSatellites
from isl_emu.routing.outlook import NOBODY, Outlook

S = 1_000_000_000
REQUEST = PlannedRequest(0, 0, "gs-a", "s2", "Why?", "", 8, 0.0, 5)
# seen from gs-a at 0 s and at 1 s: name -> delay, hops, until when overhead
SEEN = [
    {"s1": (30, 1, 9 * S), "s2": (10, 1, 5 * S), "s3": (20, 2, NOBODY)},
    {"s3": (11, 1, 8 * S), "s2": (12, 2, NOBODY)},
]
NAMES = ["s1", "s2", "s3"]


def _outlook() -> Outlook:
    arrays = np.full((4, len(SEEN), 1, len(NAMES)), NOBODY, dtype=np.int64)
    for k, seen in enumerate(SEEN):
        for place, (name, values) in enumerate(seen.items()):
            arrays[:, k, 0, place] = (NAMES.index(name), *values)
    return Outlook(np.int64(S), np.array(["gs-a"]), np.array(NAMES), *arrays)


@pytest.fixture
def serving(tmp_path: Path) -> ServingSatellites:
    path = tmp_path / "serving.jsonl"
    path.write_text("".join(f'{{"satellite": "{name}", "t_ns": 0}}\n' for name in NAMES))
    return ServingSatellites(path)


def _chooser(serving: ServingSatellites, target: str, queues: Queues | None = None, **settings: object) -> Chooser:
    asking = Asking(deadline_ns=S, satellites=NAMES, target=target, **settings)
    return Chooser(asking, serving, _outlook(), policy_of(target), queues)


@pytest.mark.parametrize(
    ("target", "t_ns", "satellite"),
    [
        ("nearest", 0, "s2"),
        ("nearest", S, "s3"),
        ("longest-contact", 0, "s1"),
        ("longest-contact", S, "s3"),
        ("least-loaded", 0, "s2"),  # as long as no queue is known
    ],
)
def test_policies_of_ours(serving: ServingSatellites, target: str, t_ns: int, satellite: str) -> None:
    assert _chooser(serving, target).choose(REQUEST, t_ns, []) == satellite


def test_the_shortest_queue_that_was_heard_of_and_what_was_sent_since(serving: ServingSatellites) -> None:
    queues = Queues()
    chooser = _chooser(serving, "least-loaded", queues)
    queues.hear("gs-a", "s1", Heard(0, 1.0), 0)
    assert chooser.choose(REQUEST, S // 2, []) == "s1"  # known beats unknown
    queues.hear("gs-a", "s2", Heard(0, 0.0), 0)
    queues.hear("gs-b", "s3", Heard(0, -5.0), 0)  # what another station knows is not known here
    assert chooser.choose(REQUEST, S // 2, []) == "s2"
    queues.send("gs-a", "s2")
    asked_after = queues.sent("gs-a", "s2")
    queues.send("gs-a", "s2")
    assert chooser.choose(REQUEST, S // 2, []) == "s1"
    queues.hear("gs-a", "s2", Heard(S // 4, 1.0), asked_after)
    assert queues.of("gs-a", "s2", S) == (2.0, 3 * S // 4)  # one that it told, one sent after it was asked


def test_only_who_serves_is_chosen_and_from_when_on(tmp_path: Path) -> None:
    path = tmp_path / "grows.jsonl"
    chooser = _chooser(ServingSatellites(path), "nearest")
    assert chooser.choose(REQUEST, 0, []) is None
    path.write_text('{"satellite": "s3", "t_ns": 0}\n{"satellite": "s2", "t_n')
    assert chooser.choose(REQUEST, 0, []) == "s3"
    with path.open("a") as file:
        file.write('s": 5}\n')
    assert [chooser.choose(REQUEST, t_ns, []) for t_ns in (0, 5)] == ["s3", "s2"]


def test_a_second_attempt_goes_elsewhere_if_there_is_an_elsewhere(serving: ServingSatellites) -> None:
    assert _chooser(serving, "nearest").choose(REQUEST, 0, ["s2"]) == "s3"
    assert _chooser(serving, "nearest").choose(REQUEST, S, ["s2", "s3"]) == "s3"
    assert _chooser(serving, "nearest", retry_at="same").choose(REQUEST, 0, ["s3"]) == "s3"
    assert _chooser(serving, "uniform").choose(REQUEST, 0, ["s2"]) in ("s1", "s3")
    assert _chooser(serving, "uniform").choose(REQUEST, 0, NAMES) in NAMES


def test_who_was_planned_is_asked_if_it_serves(serving: ServingSatellites, tmp_path: Path) -> None:
    assert _chooser(serving, "uniform").choose(REQUEST, 0, []) == "s2"
    (tmp_path / "one.jsonl").write_text('{"satellite": "s1", "t_ns": 0}\n')
    lone = ServingSatellites(tmp_path / "one.jsonl")
    assert _chooser(lone, "uniform").choose(REQUEST, 0, []) == "s1"
    assert _chooser(lone, "s2").choose(REQUEST, 0, ["s2"]) == "s2"  # pinned is pinned
    no_way_to_s2 = Chooser(Asking(S, ["s1", "s3"]), serving)
    assert {no_way_to_s2.choose(REQUEST, 0, ["s3"] * times) for times in range(1, 9)} == {"s1"}


def test_the_nearest_few_are_candidates_and_those_overhead(serving: ServingSatellites) -> None:
    found = _chooser(serving, "nearest", candidates=1).candidates("gs-a", 0)
    assert [candidate.satellite for candidate in found] == ["s2", "s1"]
    assert [candidate.contact_left_ns for candidate in found] == [5 * S, 9 * S]


def farthest(situation: Situation) -> str:
    """A policy of a user's own."""
    return situation.candidates[-1].satellite


def stranger(situation: Situation) -> str:
    """A wrong one."""
    return "s9"


def test_a_policy_of_a_users_own(serving: ServingSatellites, monkeypatch: pytest.MonkeyPatch) -> None:
    finder = "isl_emu.parts.questions.policies.user_function"
    monkeypatch.setattr(finder, lambda name, where, arguments: globals()[name.split(":")[1]])
    assert _chooser(serving, "my.policies:farthest").choose(REQUEST, 0, []) == "s1"
    with pytest.raises(WorkloadError, match="returned 's9' for gs-a, but it chooses one of the candidates .s2, s3, s1"):
        _chooser(serving, "my.policies:stranger").choose(REQUEST, 0, [])


def test_a_policy_that_cannot_be_imported_is_named() -> None:
    with pytest.raises(ScenarioError, match="questions.target: is 'no.such:thing'"):
        policy_of("no.such:thing")


LLAMA = """# HELP llamacpp:requests_processing Number of requests processing.
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing 1
llamacpp:requests_deferred 3
llamacpp:n_decode_total 999
"""
VLLM = """vllm:num_requests_running{engine="0",model_name="sat"} 2.0
vllm:num_requests_waiting{engine="0",model_name="sat"} 5.0
"""


@pytest.mark.parametrize(("metrics", "queue"), [(LLAMA, 4.0), (VLLM, 7.0), ("", None), ("up 1\n", None)])
def test_queues_are_read_from_metrics(metrics: str, queue: float | None) -> None:
    assert queue_of(metrics) == queue


def test_settings_round_trip(tmp_path: Path) -> None:
    asking = Asking(deadline_ns=S, satellites=("s1",), target="nearest", retries=2)
    asking.write(tmp_path)
    assert read_asking(tmp_path) == asking


def test_the_policy_on_the_page_is_the_one_that_runs() -> None:
    docs = Path(__file__).parents[2] / "docs"
    assert (docs / "examples" / "idle_first.py").read_text() in (docs / "serving.md").read_text()
