"""All checks together, as a table for people and as JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

from rich.table import Table

from isl_emu.errors import ScenarioError
from isl_emu.validate import closed_forms, kuiper, lasers, sgp4_verification
from isl_emu.validate.check import Check, Value

GROUPS = (kuiper.checks, closed_forms.checks, sgp4_verification.checks, lasers.checks, closed_forms.energy_checks)

KINDS = {"calibrated": "calibrated figures", "predicted": "predicted figures", "measured": "properties of the data"}


def all_checks() -> Iterator[Check]:
    """Every comparison, computed as it is asked for."""
    for checks in GROUPS:
        yield from checks()


def table(checks: Sequence[Check]) -> Table:
    """One line for each check: what was compared, expected, got, tolerance, and whether it passed.

    Against measurements also whether ours is calibrated or predicted.
    """
    measured = any(check.basis for check in checks)
    columns = Table(box=None, pad_edge=False)
    columns.add_column("check", overflow="fold")
    for name in ("measured, or limit" if measured else "expected", "got", "tolerance"):
        columns.add_column(name, justify="right", overflow="fold")
    if measured:
        columns.add_column("ours is", no_wrap=True)
    columns.add_column("", no_wrap=True)
    group = None
    for check in checks:
        if check.group != group:
            group = check.group
            columns.add_row(f"[bold]{group}[/]")
        tolerance = f"{check.tolerance:g} {check.unit}".rstrip() if check.tolerance else "exact"
        tolerance = {"near": tolerance, "shown": "not judged"}.get(check.rule, check.rule)
        note = f"\n  [dim]{check.note}[/]" if check.note else ""
        verdict = "" if check.rule == "shown" else "[green]pass[/]" if check.passed else "[red]FAIL[/]"
        expected, got = _text(check.expected, check), _text(check.got, check)
        basis = [check.basis] if measured else []
        columns.add_row(f"  {check.name}{note}", expected, got, tolerance, *basis, verdict)
    return columns


def write_checks(checks: Sequence[Check], path: Path) -> None:
    """The same for machines.

    Raises:
        ScenarioError: the file cannot be written.
    """
    document = {
        "isl_emu": version("isl-emu"),
        "passed": sum(check.passed for check in checks),
        "failed": sum(not check.passed for check in checks),
        "checks": [check.to_json() for check in checks],
    }
    try:
        path.write_text(json.dumps(document, indent=2) + "\n")
    except OSError as error:
        raise ScenarioError(
            f"--json: {path} cannot be written ({error.strerror}), but the table goes there; name another file"
        ) from None


def conclusion(checks: Sequence[Check]) -> str:
    """One sentence; against measurements, how many of the figures that are calibrated, and predicted, are near."""
    failed = sum(not check.passed for check in checks)
    if any(check.basis for check in checks):
        judged = [check for check in checks if check.rule != "shown"]
        counts = [
            f"{sum(check.passed for check in of)} of {len(of)} {what}"
            for basis, what in KINDS.items()
            if (of := [check for check in judged if check.basis == basis])
        ]
        ending = "; the scenario or the model is not like what was measured there" if failed else ""
        return f"within their tolerance: {', '.join(counts) or 'nothing that is judged'}{ending}"
    if failed:
        return f"{failed} of {len(checks)} checks failed: do not trust this copy of isl-emu, and report it."
    return f"all {len(checks)} checks passed"


def _text(value: Value, check: Check) -> str:
    """A value with digits enough to see its tolerance."""
    if value is None:
        return "unreachable"
    if isinstance(value, float) and check.basis:
        return f"{value:.3g} {check.unit}".rstrip()
    if isinstance(value, float) and check.tolerance:
        return f"{value:.1e} {check.unit}" if check.expected == 0.0 and value else f"{value:.8g} {check.unit}"
    return str(value)
