"""What a node knows of itself, what it is told, and what of its own runs in it: one run in exact time for all."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isl_emu.api import read_plan
from isl_emu.geometry.places import places_itrs_km
from isl_emu.planned import PlannedNetwork
from isl_emu.units import NS_PER_S
from tests.exact_guest import needs_exact_time
from tests.images import layer, oci_layout
from tests.runs import finished, rows
from tests.scenarios import quiet_ring, table

pytestmark = [pytest.mark.emulation, needs_exact_time]

PYTHON = ["/usr/bin/python3", "-S", "-c"]
ASK = """
import json, os, socket, subprocess, time
from urllib.request import urlopen
def get(place, host="169.254.169.254"):
    return urlopen(f"http://{host}/{place}").read().decode()
time.sleep(0.5)
told = {
    "file": open(os.environ["ISL_EMU_NODE"]).read(),
    "v4": get(""),
    "v6": get("", "[fd00:ec2::254]"),
    "now": json.loads(get("now")),
    "links": json.loads(get("links")),
    "path": json.loads(get("path/p00s03?at=2s")),
    "date": time.time_ns(),
    "host": socket.gethostname(),
    "uname": subprocess.run(["uname", "-n"], capture_output=True, text=True).stdout,
    "names": [[info[0].name, info[4][0]] for info in socket.getaddrinfo("p00s03", 80, type=socket.SOCK_STREAM)],
}
try:
    get("nowhere")
except OSError as error:
    told["refused"] = error.code, error.read().decode()
json.dump(told, open("told.json", "w"))
"""
LOOK = """
import json, socket, threading, time
def value(name):
    return open("/proc/sys/net/ipv4/" + name).read().split()
told = {"congestion": value("tcp_congestion_control"), "memory": value("tcp_rmem"), "threads": 0}
told["used"] = socket.socket().getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(bytes(1)).decode()
held = threading.Event()
try:
    while told["threads"] < 200:
        threading.Thread(target=held.wait, daemon=True).start()
        told["threads"] += 1
except RuntimeError:
    pass
held.set()
json.dump(told, open("inside.json", "w"))
"""
SAY = 'echo "$ISL_EMU_EVENT $ISL_EMU_T_NS $MODE $PWD"'


BUSY = r"""
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static void say(const char *what, const char *path) {
    printf("%s %s\n", what, access(path, F_OK) ? "none" : "there");
}
int main(int count, char **words) {
    char name[256], text[256] = "", *block;
    if (!strcmp(words[1], "look")) {
        gethostname(name, sizeof name);
        FILE *own = fopen("/etc/own", "r"), *kept = fopen("kept", "w");
        if (own) fgets(text, sizeof text, own);
        printf("host %s\nown %s\nmode %s\ntold %s\n", name, text, getenv("MODE"), getenv("TOLD"));
        say("gone", "/etc/gone"); say("shell", "/bin/sh"); say("usr", "/usr/lib"); say("null", "/dev/null");
        say("self", "/proc/self/exe"); say("node", getenv("ISL_EMU_NODE")); say("hosts", "/etc/hosts");
        fputs("written", kept); fclose(kept);
        FILE *lost = fopen("/lost", "w"); fputs("lost", lost); fclose(lost);
    } else if (!strcmp(words[1], "who")) {
        FILE *kept = fopen(strcat(strcpy(name, getenv("ISL_EMU_OUT")), "/who"), "w");
        gid_t groups[8];
        int further = getgroups(8, groups);
        getcwd(text, sizeof text);
        printf("%d %d %d %d %s %s", getuid(), getgid(), further, further > 0 ? groups[0] : -1, text, getenv("HOME"));
        for (int word = 2; word < count; word++) printf(" %s", words[word]);
        printf(" %s", kept ? "kept" : strerror(errno));
        printf(" %d\n", chown("/etc/own", 0, 0));
    } else if (!strcmp(words[1], "hog")) {
        while ((block = malloc(1 << 20))) memset(block, 1, 1 << 20);
    } else {
        printf("chroot %s\n", chroot("/tmp") ? strerror(errno) : "done");
        say("machine", "/proc/1/root/usr"); say("up", "/../usr");
    }
    return 0;
}
"""


def _own_image(folder: Path) -> Path:
    """An OCI layout of two layers with one static program, and no shell."""
    (folder / "busy.c").write_text(BUSY)
    subprocess.run(["gcc", "-static", "-O1", "-o", folder / "busy", folder / "busy.c"], check=True)
    lower = layer([("bin/busy", (folder / "busy").read_bytes()), ("etc/own", b"lower"), ("etc/gone", b"gone")])
    oci_layout(folder / "oci", [lower, layer([("etc/own", b"upper"), ("etc/.wh.gone", b""), ("proc", "/etc")])])
    lists = layer([("etc/passwd", b"app:x:1000:100::/srv:\n"), ("etc/group", b"video:x:44:app\n"), ("srv/x", b"")])
    makers = {"Entrypoint": ["busy", "who"], "Cmd": ["first"], "WorkingDir": "/srv", "User": "app"}
    oci_layout(folder / "makers", [lower, lists], **makers)
    return folder / "oci"


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of the run."""
    folder = tmp_path_factory.mktemp("nodes") / "out"
    image = _own_image(tmp_path_factory.mktemp("image"))
    text = quiet_ring("8 s", step="1 s")
    text += table("metadata", nodes=["p00s0*", "gs-*"])
    text += table("[program]", name="asks", node="gs-chengdu", at="3 s", command=[*PYTHON, ASK], cpu_time="stated")
    text += table("[program]", name="asks-too", node="p00s00", at="3 s", command=[*PYTHON, ASK], cpu_time="stated")
    text += table("[program]", name="steps", node="p00s01", on="step", at="6 s", env={"MODE": "a b"}, cwd="/tmp",
                  command=["sh", "-c", SAY], cpu_time="stated")  # fmt: skip
    text += table("[program]", name="slow", node="p00s01", at="2 s", repeat="1 s", command=["sleep", "1.5"],
                  cpu_time="stated")  # fmt: skip
    text += table("[program]", name="never", node="p00s03", on="handover", command=["true"], cpu_time="stated")
    text += table("[node]", nodes=["p00s02"], cpus=0.5, memory="100 MiB", pids=40, congestion_control="bbr")
    text += 'sysctls = { "net.ipv4.tcp_rmem" = "4096 87380 33554432" }\n'
    text += table("[program]", name="inside", node="p00s02", command=[*PYTHON, LOOK], cpu_time="stated")
    text += table("[node]", nodes=["p00s04"], image=str(image), memory="64 MiB")
    for name, command in {"found": ["busy", "look"], "hog": ["busy", "hog"], "way-out": ["busy", "out"]}.items():
        text += table("[program]", name=name, node="p00s04", command=command, cpu_time="stated", may_fail=True,
                      at="1 s", env={"TOLD": "it"})  # fmt: skip
    text += table("[node]", nodes=["p00s05"], image=str(image.parent / "makers"), memory="64 MiB")
    for name, keys in {"entry": {}, "worded": {"args": ["a b", "c"]}, "own": {"command": ["/bin/busy", "who"]}}.items():
        text += table("[program]", name=name, node="p00s05", cpu_time="stated", at="1 s", **keys)
    text += table("[power]", board="raspberry-pi-5", bus="10 W", panel={"area": "1 m2"}, battery={"capacity": "100 Wh"},
                  radiator={"area": "1 m2", "heat_capacity": "20 kJ/K"}, satellites="all")  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.runs.ROOT", image.parent)  # where isl-emu is called, and images may lie
        finished(text, folder, "--clock", "exact")
    return folder


@pytest.fixture(scope="module")
def plan(out: Path) -> PlannedNetwork:
    return read_plan(out / "plan.parquet")


def _told(out: Path, node: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((out / "files" / node / "told.json").read_text())
    return told


def _known(out: Path, node: str) -> Mapping[str, Any]:
    known: Mapping[str, Any] = json.loads(_told(out, node)["v4"])
    return known


@pytest.mark.parametrize("node", ["gs-chengdu", "p00s00"])
def test_a_node_is_told_the_same_by_a_file_and_by_both_families(out: Path, node: str) -> None:
    told = _told(out, node)
    assert told["file"] == told["v4"] == told["v6"]
    known = json.loads(told["file"])
    assert known["name"] == told["host"] == told["uname"].strip() == node
    assert known["links"] == told["links"]
    assert (told["refused"][0], "but here are now" in told["refused"][1]) == (404, True)


def test_a_node_knows_the_time_and_its_clock_shows_it(out: Path) -> None:
    told, known = _told(out, "p00s00"), _known(out, "p00s00")
    assert (known["time"]["t_ns"], known["time"]["until_ns"]) == (3 * NS_PER_S, 4 * NS_PER_S)
    assert known["time"]["utc"] == "2026-03-20T14:30:03+00:00" and known["time"]["clock"] == "exact"
    assert told["now"]["utc"] == "2026-03-20T14:30:03.500000+00:00"
    assert told["date"] == int(np.datetime64("2026-03-20T14:30:03.5", "ns").astype(int))


def test_a_node_knows_its_links_as_the_plan_has_them(out: Path, plan: PlannedNetwork) -> None:
    known, link_plan = _known(out, "p00s00"), plan.link_plan
    me, up = plan.index("p00s00"), link_plan.snapshot(3)
    wanted = {}
    for row, link in enumerate(up.link.tolist()):
        a, b = int(link_plan.links.a[link]), int(link_plan.links.b[link])
        if me in (a, b):
            wanted[plan.nodes[a + b - me]] = int(up.delay_ns[row]), float(up.loss_ratio[row])
    assert {link["to"]: (link["delay_ns"], link["loss_ratio"]) for link in known["links"]} == wanted
    assert sorted(known["neighbours"]) == sorted(wanted) and len(wanted) >= 2
    assert {link["interface"] for link in known["links"]} == {f"to-{peer}" for peer in wanted}


def test_a_node_knows_its_path_in_the_future(out: Path, plan: PlannedNetwork) -> None:
    ways = _told(out, "gs-chengdu")["path"]["ways"]
    assert (ways[0]["from_ns"], ways[-1]["until_ns"]) == (2 * NS_PER_S, 8 * NS_PER_S)
    for way in ways:
        path = plan.path("gs-chengdu", "p00s03", way["from_ns"] // NS_PER_S)
        assert (way["nodes"], way["delay_ns"]) == ((list(path.nodes), path.delay_ns) if path else (None, None))


def test_a_node_knows_where_it_is(out: Path, plan: PlannedNetwork) -> None:
    known, start = _known(out, "p00s00"), plan.link_plan.grid.start
    here, after = places_itrs_km(plan.scenario, start, np.array([3, 4]) * NS_PER_S)[:, plan.index("p00s00")]
    assert known["position"]["itrs_km"] == pytest.approx(here.tolist(), abs=1e-6)
    assert known["velocity"]["itrs_km_s"] == pytest.approx((after - here).tolist(), abs=0.01)  # it turns in a second
    speed_km_s = float(np.linalg.norm(known["velocity"]["teme_km_s"]))
    assert speed_km_s == pytest.approx(np.sqrt(398_600.8 / np.linalg.norm(here)), rel=2e-3)  # of a circular orbit
    assert known["position"]["altitude_km"] == pytest.approx(525.0, abs=25.0)  # over the ellipsoid
    station = _known(out, "gs-chengdu")["position"]
    assert (station["latitude_deg"], station["longitude_deg"]) == pytest.approx((30.66, 104.06), abs=1e-6)


def test_a_node_knows_its_battery_and_the_sun(out: Path) -> None:
    known, energy = _known(out, "p00s00"), rows(out, "energy")
    (row,) = [row for row in energy if row["satellite"] == "p00s00" and row["t_ns"] == 2 * NS_PER_S]
    assert known["battery"]["charge_ratio"] == row["charge_ratio"]
    assert known["sun"]["eclipse"] == (row["sunlit_ratio"] == 0.0)
    assert _known(out, "gs-chengdu")["battery"] is None


def test_names_of_nodes_are_known_in_both_families(out: Path, plan: PlannedNetwork) -> None:
    number = plan.index("p00s03") + 1
    assert _told(out, "p00s00")["names"] == [["AF_INET", f"10.0.0.{number}"], ["AF_INET6", f"fd00::{number:x}"]]


def test_a_program_starts_on_each_step_in_its_folder_with_its_variables(out: Path) -> None:
    told = (out / "programs" / "steps.log").read_text().splitlines()
    assert told == [f"step {t_s * NS_PER_S} a b /tmp" for t_s in (6, 7)]
    assert [row["t_start_ns"] for row in rows(out, "programs") if row["name"] == "steps"] == [
        6 * NS_PER_S,
        7 * NS_PER_S,
    ]


def test_a_program_never_runs_beside_itself(out: Path) -> None:
    slow = sorted((row["t_due_ns"], row["outcome"]) for row in rows(out, "programs") if row["name"] == "slow")
    assert slow == [(t_s * NS_PER_S, "still running" if t_s % 2 else "ended") for t_s in range(2, 8)]
    assert "3 starts: 3 ended, 3 still running" in (out / "summary.txt").read_text()


def test_a_program_for_which_nothing_comes_is_told(out: Path) -> None:
    assert not [row for row in rows(out, "programs") if row["name"] == "never"]
    assert "was never due: handover of p00s03 did not come" in (out / "summary.txt").read_text()


def test_a_node_has_its_limits_and_its_settings(out: Path) -> None:
    inside = json.loads((out / "files" / "p00s02" / "inside.json").read_text())
    assert inside["congestion"] == ["bbr"] and inside["used"] == "bbr"
    assert inside["memory"] == ["4096", "87380", "33554432"]
    assert 20 < inside["threads"] < 40
    execution = json.loads((out / "provenance.json").read_text())["execution"]
    assert execution["congestion_control"] == {"default": "cubic", "p00s02": "bbr"}


def test_a_program_sees_its_image_and_nothing_of_the_machine(out: Path) -> None:
    found = dict(line.split(" ", 1) for line in (out / "programs" / "found.log").read_text().splitlines())
    assert found == {
        "host": "p00s04", "own": "upper", "mode": "own", "told": "it", "gone": "none", "shell": "none", "usr": "none",
        "null": "there", "self": "there", "node": "there", "hosts": "there",
    }  # fmt: skip
    assert (out / "files" / "p00s04" / "kept").read_text() == "written"
    lost = json.loads((out / "provenance.json").read_text())["execution"]["lost_files"]
    assert lost["p00s04"]["paths"] == ["/lost"]


def test_an_image_runs_what_as_whom_and_where_its_makers_want(out: Path) -> None:
    said = {name: (out / "programs" / f"{name}.log").read_text().strip() for name in ("entry", "worded", "own")}
    as_whom = "1000 100 1 44 /srv /srv"
    assert said == {
        "entry": f"{as_whom} first kept -1", "worded": f"{as_whom} a b c kept -1", "own": f"{as_whom} kept -1",
    }  # fmt: skip
    commands = {row["name"]: row["command"] for row in rows(out, "programs") if row["node"] == "p00s05"}
    assert commands == {
        "entry": ["busy", "who", "first"], "worded": ["busy", "who", "a b", "c"], "own": ["/bin/busy", "who"],
    }  # fmt: skip


def test_a_program_of_an_image_has_its_limits_and_no_way_out(out: Path) -> None:
    hog = next(row for row in rows(out, "programs") if row["name"] == "hog")
    assert (hog["outcome"], hog["status"]) == ("ended", -9)
    assert (out / "programs" / "way-out.log").read_text().splitlines() == [
        "chroot Operation not permitted", "machine none", "up none",
    ]  # fmt: skip
