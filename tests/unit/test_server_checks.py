"""What is known of servers before anything is built."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from isl_emu.errors import IslEmuError, ScenarioError
from isl_emu.live import room
from isl_emu.live.room import all_needs, check_room, run_memory_byte
from isl_emu.parts.kv_handover.part import KvHandoverPart
from isl_emu.parts.part import Source, files_named
from isl_emu.parts.programs.programs import found_here
from isl_emu.parts.serving import model_file
from isl_emu.parts.serving.board_pace import file_roofline, pace_name, wanted_tokens_s
from isl_emu.parts.serving.kinds import KINDS, kind_of
from isl_emu.parts.serving.part import ServingPart
from isl_emu.parts.serving.results import servers_section
from isl_emu.parts.serving.server_kind import ServerGroup
from isl_emu.parts.serving.start import write_serving
from isl_emu.parts.serving.who_serves import SERVING, ServingSatellites
from isl_emu.runs.endpoints import MODEL_PORT, WORDS_PORT, Endpoint, write_endpoints
from isl_emu.scenario.boards import board_named
from isl_emu.scenario.compute import SERVERS
from isl_emu.scenario.model import Scenario
from isl_emu.scenario.models import model_named
from isl_emu.scenario.parse import parse_scenario
from tests.scenarios import SMALL
from tests.unit.test_model_file import SMOL, _gguf

SHAPE = {**SMOL, "feed_forward_length": 1536, "context_length": 8192}
MODEL = model_named("smollm2-135m")


@pytest.fixture(autouse=True)
def _any_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_file, "_check_processor", lambda: None)


def gguf(path: Path, counts: dict[str, int], bits: int = 4) -> Path:
    """A file as long as a model with so many bits, most of it a hole."""
    path.write_bytes(_gguf(counts=counts))
    with path.open("r+b") as file:
        file.truncate(MODEL.layer_parameters * bits // 8)
    return path


def check_servers(scenario: Scenario, place: str) -> list[Path]:
    """The files of weights that servers load, once all servers are known to be possible."""
    return list(ServingPart().prepare(Source(scenario, None, None), place).models)


def scenario(keys: str) -> Scenario:
    return parse_scenario(f"{SMALL}[compute]\n{keys}\n", "small")


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_a_file_has_the_pace_of_its_shape_and_bits(tmp_path: Path, bits: int) -> None:
    roofline = file_roofline(gguf(tmp_path / "m.gguf", SHAPE, bits), board_named("raspberry-pi-5"))
    assert (roofline.bits, roofline.model.layer_parameters) == (bits, MODEL.layer_parameters)
    assert roofline.model.kv_byte_per_token == MODEL.kv_byte_per_token


def test_a_throttled_group_wants_its_boards_pace_or_the_one_it_names(tmp_path: Path) -> None:
    model = gguf(tmp_path / "m.gguf", SHAPE)
    board = f'server = "throttled"\nmodel = "{model}"\nboard = "raspberry-pi-4"'
    expected = 1e9 / file_roofline(model, board_named("raspberry-pi-4")).step_ns(0)
    assert wanted_tokens_s(scenario(board).compute[0]) == expected
    assert wanted_tokens_s(scenario(f"{board}\ndecode_tokens_s = 7.5").compute[0]) == 7.5
    assert check_servers(scenario(board), "guest") == [model]


def test_a_file_is_read_once_however_many_satellites_serve_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, header = [], model_file._header
    monkeypatch.setattr(model_file, "_header", lambda file, path: read.append(path) or header(file, path))
    model = gguf(tmp_path / "m.gguf", SHAPE)
    many = parse_scenario(
        SMALL.replace("total = 12", "total = 66") + f'[compute]\nserver = "throttled"\nmodel = "{model}"\n'
        'board = "raspberry-pi-4"\n',
        "many",
    )
    assert len(list(all_needs(many))) == len(many.satellite_names) == 66
    assert check_servers(many, "host") == read == [model]


def test_the_facts_of_each_kind_are_told(tmp_path: Path) -> None:
    modelled = scenario('server = "modelled"\nboard = "three-body"\nmodel = "qwen3-8b"').compute[0]
    assert kind_of(modelled).facts(modelled)["decode_tokens_s"] == pytest.approx(
        66.7, abs=0.1
    )  # by hand from docs/servers.md
    outside = scenario('server = "external"\nurl = "http://gpu.example:8000"').compute[0]
    assert kind_of(outside).facts(outside)["model"] == "http://gpu.example:8000"


def test_every_server_that_a_scenario_can_name_has_its_kind() -> None:
    url, command = 'url = "http://gpu.example"', 'command = "serve"'
    texts = [
        'server = "real"',
        'server = "throttled"\ndecode_tokens_s = 5.0',
        'server = "modelled"\nboard = "three-body"',
    ]
    texts += [f'server = "external"\n{one}' for one in (url, command)]
    groups = [scenario(text).compute[0] for text in texts]
    assert {group.server for group in groups} == set(SERVERS)
    assert {group.kind for group in groups} == set(KINDS)
    assert [kind_of(group).key for group in groups] == [group.kind for group in groups]


def test_a_command_brings_the_files_that_it_names(tmp_path: Path) -> None:
    program = tmp_path / "own server.py"
    program.write_text("")
    keys = f"""server = "external"\ncommand = "sh '{program}' --port {{port}}"\ncpus = 0.5"""
    needs = list(all_needs(scenario(keys)))
    assert {need.visible for need in needs} == {(Path(shutil.which("sh") or ""), program)}
    assert all((need.cpus, need.expected_byte) == (0.5, need.memory_byte) for need in needs)


@pytest.mark.parametrize("before", ["", "/"])
def test_a_word_of_a_command_may_be_longer_than_any_files_name(before: str) -> None:
    word = f"{before}{'true; ' * 1000}"
    assert found_here(["sh", "-c", word]) == ["sh", "-c", word]
    assert files_named(["sh", "-c", word]) == (Path(shutil.which("sh") or ""),)


@pytest.mark.parametrize(
    ("keys", "place", "sentence"),
    [
        ('command = "no-such-program --port {port}"', "host", "compute.command: 'no-such-program' cannot be run"),
        ('url = "http://gpu.example"', "guest", "is outside, but the guest kernel has no way out"),
        ('url = "http://gpu.example"\nkey_variable = "ISL_EMU_NO_KEY"', "host", "ISL_EMU_NO_KEY is not set, but"),
    ],
)
def test_a_server_that_cannot_work_is_refused_before_anything_is_built(keys: str, place: str, sentence: str) -> None:
    with pytest.raises(IslEmuError, match=sentence):
        check_servers(scenario(f'server = "external"\n{keys}'), place)


def test_more_servers_than_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = scenario(f'satellites = ["p00s00"]\nmodel = "{gguf(tmp_path / "m.gguf", SHAPE)}"')
    needed_byte = run_memory_byte(few, list(all_needs(few)))
    monkeypatch.setattr(room, "available_memory_byte", lambda: needed_byte)
    check_room(few)
    monkeypatch.setattr(room, "available_memory_byte", lambda: needed_byte - 1)
    with pytest.raises(IslEmuError, match=r"memory: .* MiB are available, but .* satellites with 1 programs"):
        check_room(few)


def test_a_file_without_a_shape_has_no_boards_pace(tmp_path: Path) -> None:
    model = gguf(tmp_path / "m.gguf", SMOL)
    with pytest.raises(IslEmuError, match="does not say how its layers look.* give decode_tokens_s in place of board"):
        check_servers(scenario(f'server = "throttled"\nboard = "raspberry-pi-4"\nmodel = "{model}"'), "host")


@pytest.mark.parametrize("command", ["serve {ports}", "serve '", " ", "serve {"])
def test_a_command_that_is_none_is_refused(command: str) -> None:
    with pytest.raises(ScenarioError, match=r"compute\[0\].command is .*, but "):
        scenario(f'server = "external"\ncommand = "{command}"')


def test_status_says_how_many_serve(tmp_path: Path) -> None:
    assert list(ServingPart().status(tmp_path)) == []
    nodes = {
        name: Endpoint("", "10.0.0.1", port) for name, port in {"p00s00": 1, "p00s01": 1, "gs-berlin": None}.items()
    }
    write_endpoints(nodes, tmp_path)
    assert list(ServingPart().status(tmp_path)) == ["0 of 2 model servers ready"]
    write_serving(SimpleNamespace(folder=SimpleNamespace(journal=tmp_path)), ["p00s01"], t_ns=5)
    assert list(ServingPart().status(tmp_path)) == ["1 of 2 model servers ready"]
    assert ServingSatellites(tmp_path / SERVING).at(5) == {"p00s01"}


def test_servers_that_wait_for_their_model_have_their_share_of_a_core_too(tmp_path: Path) -> None:
    """With none the time in which they answer would count as the machine's saturation."""
    kind, group = KINDS["real"], scenario(f'model = "{gguf(tmp_path / "m.gguf", SHAPE)}"\ncpus = 0.5').compute[0]
    (facts,) = kind.start(SimpleNamespace(exact=False), [ServerGroup(group, ("p00s00",), ready=())]).facts
    assert facts == {"model": "m.gguf", "cpus": 0.5}


def needing_real_time(keys: str) -> list[str]:
    return list(ServingPart().real_time(scenario(keys)))


def test_real_servers_have_exact_time_with_a_board_and_else_say_what_to_add(tmp_path: Path) -> None:
    model, bare = gguf(tmp_path / "m.gguf", SHAPE), gguf(tmp_path / "bare.gguf", {})
    assert needing_real_time(f'model = "{model}"\nboard = "three-body"') == []
    assert needing_real_time(f'model = "{bare}"\nboard = "three-body"\npace_model = "qwen3-8b"') == []
    assert needing_real_time('server = "modelled"\nboard = "three-body"') == []
    assert needing_real_time(f'server = "throttled"\nmodel = "{bare}"\ndecode_tokens_s = 5.0') == []
    (reason,) = needing_real_time(f'model = "{model}"')
    assert "would take no time to compute unless board says" in reason and "add board, and pace_model" in reason
    (reason,) = needing_real_time(f'model = "{bare}"\nboard = "three-body"')
    assert "does not say whose pace it has on three-body; add pace_model" in reason
    (reason,) = needing_real_time('server = "external"\nurl = "http://127.0.0.1:1"')
    assert 'is "external", whose answers would take no time' in reason


def test_whose_pace_it_is_has_a_name(tmp_path: Path) -> None:
    model = gguf(tmp_path / "mine.gguf", SHAPE)
    keys = f'model = "{model}"\nboard = "three-body"\n'
    found = [pace_name(scenario(keys + more).compute[0]) for more in ("", 'pace_model = "qwen3-8b"\n')]
    stated = scenario(f'server = "throttled"\n{keys}decode_tokens_s = 7.5').compute[0]
    assert [*found, pace_name(stated)] == ["mine@three-body", "qwen3-8b@three-body", "7.5 tokens/s"]


def test_in_exact_time_a_real_group_is_served_behind_the_engine_of_its_board(tmp_path: Path) -> None:
    keys = f'model = "{gguf(tmp_path / "m.gguf", SHAPE)}"\nboard = "three-body"\n'
    node = SimpleNamespace(name="p00s00", netns_path="/n", address="10.0.0.1")
    live = SimpleNamespace(exact=True, net={"p00s00": node}, scenario=SimpleNamespace(rate_scale=1.0))
    for more, shape in (("", True), ('pace_model = "qwen3-8b"\n', False)):
        group = scenario(keys + more).compute[0]
        started = KINDS["real"].start(live, [ServerGroup(group, ("p00s00",), ready=())])
        (spec,), (facts,) = started.specifications, started.facts
        assert (spec.port, spec.words_port, spec.slots) == (MODEL_PORT, WORDS_PORT, 8)
        assert (spec.shape is not None, spec.pace.step_ns(0)) == (shape, 1e9 / facts["decode_tokens_s"])
        assert facts["paced_as"] == pace_name(group)


def test_the_summary_says_whose_words_and_whose_pace(tmp_path: Path) -> None:
    model = gguf(tmp_path / "m.gguf", SHAPE)
    group = scenario(f'model = "{model}"\nboard = "three-body"\npace_model = "qwen3-8b"').compute[0]
    row = {
        "group": 0,
        "server": "real",
        "satellites": 12,
        "model": "m.gguf",
        "board": "three-body",
        "got_tokens_s": None,
    }
    figures = {"steps": 0, "throttled_ratio": None}
    own = {**row, "decode_tokens_s": None, "paced_as": None}
    assert list(servers_section([own], [group], figures))[-1].endswith("its own pace")
    paced = {**row, "decode_tokens_s": 66.65, "paced_as": "qwen3-8b@three-body"}
    *_, line, words = servers_section([paced], [group], figures)
    assert line.endswith("66.7 tokens/s, as qwen3-8b@three-body")
    assert "the words are those of the files" in words


@pytest.mark.parametrize(("pace_model", "exact"), [(None, True), ("smollm2-135m", True), ("qwen3-8b", False)])
def test_a_cache_is_moved_in_exact_time_if_it_is_of_the_model_whose_pace_it_is(
    pace_model: str | None, exact: bool
) -> None:
    group = SimpleNamespace(model="bundled", pace_model=pace_model)
    moving = SimpleNamespace(kv_handover=(SimpleNamespace(source="a", target="b"),), compute_of=lambda name: group)
    reasons = list(KvHandoverPart().real_time(moving))
    assert (reasons == []) is exact
    assert all("remove pace_model" in reason for reason in reasons)
