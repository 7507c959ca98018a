"""What a scenario or a command may name is what there is: nothing is missing on either side."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

import pytest
from click.testing import CliRunner

from isl_emu.cli import cli
from isl_emu.export.formats import FORMATS
from isl_emu.linkplan import handover
from isl_emu.routing import policies
from isl_emu.scenario.model import GroundStation, Routing


def named(record: Any, field: str) -> set[str]:
    """The words that a scenario's key may be."""
    annotation = record.model_fields[field].annotation
    literals = [annotation, *get_args(annotation)]
    return {word for one in literals if get_origin(one) is Literal for word in get_args(one)}


def test_every_routing_policy_has_its_word() -> None:
    assert named(Routing, "policy") == set(policies.POLICIES)


def test_every_handover_policy_has_its_word() -> None:
    assert named(GroundStation, "handover") == {*handover.POLICIES, "scheduled"}, "the last is linkplan/scheduler.py"
    assert set(handover.POLICIES) >= handover.AT_ONCE


@pytest.mark.parametrize("format_name", FORMATS)
def test_every_export_format_is_in_the_help(format_name: str) -> None:
    assert format_name in CliRunner().invoke(cli, ["export", "--help"]).output


def test_a_format_that_there_is_not_is_wrong_usage() -> None:
    done = CliRunner().invoke(cli, ["export", "no-plan.parquet", "--format", "kml"])
    assert done.exit_code == 2
    assert "'kml' is not one of csv, ion, ud3tn, czml" in done.output
