"""What a live run makes of the ends of an uplink's processes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from isl_emu.errors import WorkloadError
from isl_emu.parts.uplink.start import UplinkActivity


class Starter:
    """Takes down who was given up."""

    def __init__(self):
        self.given_up = []

    def give_up(self, name, error):
        self.given_up.append((name, error))

    def check(self):
        pass


def _activity(**statuses):
    starter = Starter()
    processes = {
        name: SimpleNamespace(poll=lambda status=status: status, wait=lambda timeout, status=status: status)
        for name, status in statuses.items()
    }
    return UplinkActivity(processes, starter), starter


def test_what_runs_or_has_ended_with_the_run_is_fine():
    activity, starter = _activity(a=None, b=0)
    activity.check()
    activity.await_end(1.0)
    assert starter.given_up == []


def test_an_error_of_ours_ends_the_run_and_names_the_log():
    activity, _ = _activity(p00s00=1)
    with pytest.raises(WorkloadError, match=r"p00s00 ended with status 1, .*see journal/transfer-p00s00.log"):
        activity.check()


def test_a_killed_process_is_reported_once_and_the_run_goes_on():
    activity, starter = _activity(p00s00=-9, p00s01=None)
    activity.check()
    activity.check()
    assert starter.given_up == [("p00s00", "what received the model was killed (signal 9)")]
