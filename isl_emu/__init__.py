"""isl-emu: an emulator of laser inter-satellite link networks that carries real LLM inference traffic.

Data flows one way through the packages:

    scenario -> geometry -> linkplan -> routing -> network -> parts -> results

The first four are pure (numpy in, numpy out, no root). `network` drives the kernel, `parts` is what a run carries,
`machine` decides where it runs, and `experiment.py` puts all of them together. `planned.py` says what a plan can tell;
`api.py`, `balance.py` and `cli.py` are the faces of the whole, which no other module imports.

From Python, `isl_emu.load`, `isl_emu.plan` and `isl_emu.read_plan` lead to everything that a plan can tell; see
`isl_emu.api` and docs/plan.md. `isl_emu.run` runs a scenario, and `isl_emu.RunResults` reads what it left; see
docs/python.md; `isl_emu.running` steers one that is live. `isl_emu.WorkloadContext` and `isl_emu.Situation` are what
functions of a user's own get, and `isl_emu.compute` is how a program or workload takes time to compute in exact time.
`isl_emu.power_balance` says what energy and heat let satellites compute; see docs/energy.md.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isl_emu.api import NamedPath, Plan, Scenario, load, plan, read_plan
    from isl_emu.balance import PowerBalance, power_balance
    from isl_emu.errors import IslEmuError, ScenarioError
    from isl_emu.experiment import run
    from isl_emu.live.running import RunningRun, running
    from isl_emu.parts.programs.computing import compute
    from isl_emu.parts.programs.context import WorkloadContext
    from isl_emu.parts.questions.policies import Situation
    from isl_emu.results.run_results import RunResults
    from isl_emu.sweeps.compare import Comparison, compare
    from isl_emu.sweeps.sweep import Sweep, sweep

_FROM = {name: "isl_emu.api" for name in ("NamedPath", "Plan", "Scenario", "load", "plan", "read_plan")}
_FROM |= {"run": "isl_emu.experiment", "RunResults": "isl_emu.results.run_results"}
_FROM |= {name: "isl_emu.balance" for name in ("PowerBalance", "power_balance")}
_FROM |= {name: "isl_emu.live.running" for name in ("RunningRun", "running")}
_FROM |= {"compute": "isl_emu.parts.programs.computing"}
_FROM |= {"WorkloadContext": "isl_emu.parts.programs.context", "Situation": "isl_emu.parts.questions.policies"}
_FROM |= {name: "isl_emu.sweeps.compare" for name in ("Comparison", "compare")}
_FROM |= {name: "isl_emu.sweeps.sweep" for name in ("Sweep", "sweep")}
_FROM |= {name: "isl_emu.errors" for name in ("IslEmuError", "ScenarioError")}

__all__ = [
    "Comparison",
    "IslEmuError",
    "NamedPath",
    "Plan",
    "PowerBalance",
    "RunResults",
    "RunningRun",
    "Scenario",
    "ScenarioError",
    "Situation",
    "Sweep",
    "WorkloadContext",
    "compare",
    "compute",
    "load",
    "plan",
    "power_balance",
    "read_plan",
    "run",
    "running",
    "sweep",
]


def __getattr__(name: str) -> Any:
    """The public names, imported when first used: numpy and Arrow are slow to import, and a guest may need neither."""
    if name not in _FROM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_FROM[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
