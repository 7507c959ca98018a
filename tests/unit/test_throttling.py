"""Which share of a core has a wanted pace, by a server that takes so much CPU time for each token."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from isl_emu.errors import WorkloadError
from isl_emu.parts.serving import real
from isl_emu.parts.serving.real import ThrottledPace, throttle

TOKEN_NS, PROMPT_NS = 20_000_000, 700_000_000
TOKENS_S = 50.0  # of a whole core
a_millionth = 1e-6


@dataclass
class FakeContainer:
    """Takes a fixed CPU time for a prompt and for each token, and sometimes more because it was disturbed."""

    disturbed_ns: list[int] = field(default_factory=list)
    cpus: list[float] = field(default_factory=list)
    spent_ns: int = 0

    def set_cpus(self, cpus: float) -> None:
        self.cpus.append(cpus)

    def cpu_ns(self) -> int:
        return self.spent_ns


def decode(container: FakeContainer, tokens: int) -> float:
    disturbed_ns = container.disturbed_ns.pop() if container.disturbed_ns else 0
    container.spent_ns += PROMPT_NS + tokens * TOKEN_NS + disturbed_ns
    return min(container.cpus[-1], 1.0) * TOKENS_S


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(real, "_decode", decode)


def test_the_quota_is_the_pace_times_the_time_of_a_token() -> None:
    container = FakeContainer()
    found = throttle(container, 10.0, 1.0)
    assert found == ThrottledPace(pytest.approx(0.2), pytest.approx(TOKENS_S), pytest.approx(10.0))
    assert container.cpus == [1.0, pytest.approx(0.2)]


@pytest.mark.parametrize("answer", range(5))
def test_one_disturbance_does_not_count(answer: int) -> None:
    disturbed_ns = [900_000_000 if answer == number else 0 for number in range(5)]
    assert throttle(FakeContainer(disturbed_ns), 10.0, 1.0).cpus == pytest.approx(0.2, rel=a_millionth)


def test_a_pace_that_could_not_be_measured_is_an_error() -> None:
    container = FakeContainer([1_200_000_000, 0] * 3)  # each short answer, and no long one
    container.name = "p00s00"
    with pytest.raises(WorkloadError, match="56 tokens took no more CPU time than 8"):
        throttle(container, 10.0, 1.0)


def test_more_cores_than_one_make_one_thread_no_faster() -> None:
    assert throttle(FakeContainer(), 40.0, 4.0).native_tokens_s == pytest.approx(TOKENS_S)
    assert throttle(FakeContainer(), 60.0, 4.0) == ThrottledPace(4.0, pytest.approx(TOKENS_S), None)


def test_a_share_that_is_too_small_is_told() -> None:
    assert throttle(FakeContainer(), 10.1, 0.2) == ThrottledPace(0.2, pytest.approx(10.0), None)
