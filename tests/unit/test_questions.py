"""The users of a scenario: what goes together, and what is refused in a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from isl_emu.errors import ScenarioError
from isl_emu.parts.questions.asking import PLANNED_JOURNAL
from isl_emu.parts.questions.part import QuestionsPart, planned_requests
from isl_emu.scenario.parse import format_scenario, load_scenario, parse_scenario
from tests.scenarios import head, shell, station

SKY = (
    head(start="2026-03-20T14:30:00Z")
    + shell(4)
    + station("gs-a", site="chengdu")
    + station("gs-b", site="weilheim")
    + "[compute]\n[questions]\n"
)


def _parse(text: str):
    return parse_scenario(SKY + text, "test")


@pytest.mark.parametrize(
    "text",
    [
        'mean_interval = "1 s"',
        'arrivals = "gamma"\nmean_interval = "1 s"\nburstiness = 0.5',
        'arrivals = "offline"\ncount = 3',
        'arrivals = "single-stream"\ncount = 3\nusers = { gs-a = 2.0, gs-b = 1.0 }',
        'stations = ["gs-a"]\nusers = "population"\n[questions.trace]\nfile = "/t.csv"\nspeed_up = 2.0\nlimit = 5',
        'arrivals = "constant"\nrate = 2.5\nramp = [["0 s", 0], ["60 s", 1.0]]',
        'arrivals = "users"\nusers_per_station = 3\nthink_time = "4 s"',
        'arrivals = "users"\nusers_per_station = 3\ncount = 2',
        'arrivals = "users"\nusers_per_station = 3\nramp = [["0 s", 0.5]]\n'
        'think_time = { distribution = "lognormal", mean = "4 s", deviation = "1 s" }',
        'mean_interval = "1 s"\ntarget = "p00s01"\nretries = 2\nattempt_timeout = "3 s"\n[questions.slo]\nttft = "1 s"',
    ],
)
def test_what_users_do_survives_the_round_trip(text: str) -> None:
    scenario = _parse(text)
    assert parse_scenario(format_scenario(scenario), "again") == scenario


def test_users_are_spread_equally_by_weight_or_by_population() -> None:
    assert _parse('mean_interval = "1 s"').users_by_station == {"gs-a": 1.0, "gs-b": 1.0}
    weighted = 'mean_interval = "1 s"\nusers = { gs-a = 2.0, gs-b = 0.5 }'
    assert _parse(weighted).users_by_station == {"gs-a": 2.0, "gs-b": 0.5}
    text = (SKY + 'mean_interval = "1 s"\nusers = "population"').replace('"weilheim"', '"weilheim"\npopulation = 23000')
    assert parse_scenario(text, "test").users_by_station == {"gs-a": 13_568_357, "gs-b": 23_000}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", 'mean_interval is missing with arrivals "poisson"'),
        ('arrivals = "gamma"\nmean_interval = "1 s"', "burstiness is missing"),
        ('mean_interval = "1 s"\nburstiness = 2.0', "burstiness is given"),
        ('mean_interval = "1 s"\nrate = 2.0', "rate and mean_interval are both given"),
        ('arrivals = "offline"\ncount = 3\nrate = 1.0', "rate is given"),
        ('arrivals = "offline"\ncount = 3\nramp = [["0 s", 1.0]]', "ramp is given"),
        ('rate = 1.0\nramp = [["5 s", 1.0], ["5 s", 0.0]]', "ramp has times that do not rise"),
        ('rate = 1.0\nramp = [["5 s", 2.0]]', "less than or equal to 1"),
        ('rate = 1.0\nthink_time = "1 s"', "think_time is given"),
        ('arrivals = "users"\nthink_time = "1 s"', "users_per_station is missing"),
        ('arrivals = "users"\nusers_per_station = 1', "think_time is missing"),
        ('arrivals = "users"\nusers_per_station = 1\nthink_time = "0 s"', "think_time"),
        (
            'arrivals = "users"\nusers_per_station = 1\nthink_time = { distribution = "lognormal", mean = "1 s" }',
            "has its deviation missing",
        ),
        (
            'arrivals = "users"\nusers_per_station = 100_000\nthink_time = "1 ms"',
            "users_per_station is 100000, which comes to about",
        ),
        ('arrivals = "offline"', "count is missing"),
        ('arrivals = "offline"\ncount = 3\nmean_interval = "1 s"', "mean_interval is given"),
        ('arrivals = "trace"', "trace is missing"),
        ('mean_interval = "1 s"\n[questions.trace]\nfile = "/t.csv"', "mean_interval is given"),
        ('mean_interval = "1 s"\n[questions.slo]\n', "goodput needs at least one"),
        ('mean_interval = "1 s"\nusers = "population"', "station gs-b has none"),
        ('mean_interval = "1 s"\nusers = { gs-a = 1.0 }', "leaves out 'gs-b'"),
        ('mean_interval = "1 s"\nusers = { gs-a = 1.0, gs-b = 1.0, gs-c = 1.0 }', "names 'gs-c'"),
        ('mean_interval = "1 s"\nprompts = ["a"]\nprompt_file = "b.jsonl"', "prompts and prompt_file are both given"),
        ('mean_interval = "1 s"\nconversations = "a"\nprompts = ["a"]', "conversations and prompts are both given"),
        (
            'mean_interval = "1 s"\nconversations = "a"\nprompt_file = "b"',
            "conversations and prompt_file are both given",
        ),
        ('conversations = "a"\ntrace = { file = "b" }', "conversations and trace are both given"),
        ('mean_interval = "1 s"\ncontext = "move"', 'context is "move", but only conversations have turns'),
        (
            'mean_interval = "1 s"\nconversations = "a"\ncontext = "move"\nreuse_prefix = false',
            'context is "move" and reuse_prefix false',
        ),
        (
            'mean_interval = "1 s"\nconversations = "a"\ncontext = "move"',
            'some servers are "real", and only modelled ones pass on',
        ),
        ('mean_interval = "1 s"\nthink_time = "1 s"', 'think_time is given with arrivals "poisson"'),
        ('mean_interval = "1 s"\ntarget = "nearset"', "did you mean nearest?"),
        ('mean_interval = "1 s"\ntarget = "p09s09"', "or a computing satellite"),
        ('mean_interval = "1 s"\nwarm_up = "60 s"', "warm_up is 1 min, but the run takes 1 min"),
        ('mean_interval = "1 s"\nslice = "0 s"', "slice"),
    ],
)
def test_what_does_not_go_together_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        _parse(text)
    assert complaint in str(caught.value)


def test_files_are_found_from_the_scenarios_folder(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "Why?"}\n')
    path = tmp_path / "s.toml"
    path.write_text(SKY + 'mean_interval = "1 s"\nprompt_file = "p.jsonl"')
    assert load_scenario(path).questions.prompt_file == str(tmp_path / "p.jsonl")
    path.write_text(SKY + '[questions.trace]\nfile = "t.csv"')
    with pytest.raises(ScenarioError, match=r"questions.trace.file is 't.csv', but there is no file .*t.csv"):
        load_scenario(path)


@pytest.mark.parametrize(
    ("text", "apart"),
    [
        ('mean_interval = "1 s"\ntarget = "nearest"', True),
        ('arrivals = "single-stream"\ncount = 3', True),
        ('arrivals = "users"\nusers_per_station = 3\nthink_time = "4 s"', True),
        ('mean_interval = "1 s"\ntarget = "least-loaded"', False),
        ('mean_interval = "1 s"\ntarget = "own.module:choose"', False),
    ],
)
def test_stations_whose_questions_depend_on_no_other_ones_can_be_in_different_guests(text: str, apart: bool) -> None:
    scenario = _parse(text)
    assert tuple(QuestionsPart().together(scenario)) == (() if apart else (("gs-a", "gs-b"),))
    if apart:
        assert scenario.questions is not None
        requests = planned_requests(scenario, scenario.questions, scenario.serving_satellites)
        stations = {request.id: request.station for request in requests}
        assert set(stations.values()) == {"gs-a", "gs-b"}
        assert all(stations[request.after] == request.station for request in requests if request.after is not None)


def test_what_guests_were_to_ask_is_put_together_as_it_was_planned() -> None:
    """The first guest has kept what its stations ask, the second died before."""
    merged = QuestionsPart.merges[PLANNED_JOURNAL]([[{"id": 1}], [{"id": 0}, {"id": 1}, {"id": 2}], []])
    assert [record["id"] for record in merged] == [0, 1, 2]
