"""Random processes by key: their statistics, and that nothing but their key matters."""

from __future__ import annotations

import math

import numpy as np
import pytest

from isl_emu.linkplan.draws import exponential, uniform
from isl_emu.linkplan.lasers import OutageTimes, jitter_loss_ratio
from isl_emu.scenario.lasers import Jitter, Outages

S = 10**9
LINKS = np.arange(2_000)
FIVE_SIGMA = 5.0


def outages(failure: str = "300 s", repair: str = "100 s") -> Outages:
    return Outages.model_validate({"mean_time_to_failure": failure, "mean_time_to_repair": repair})


def times(a: np.ndarray = LINKS, duration_ns: int = 4_000 * S, seed: int = 1) -> OutageTimes:
    return OutageTimes(seed, outages(), a, a + 10_000, duration_ns)


def test_uniform_numbers_are_uniform_and_unrelated():
    u = uniform(7, "x", np.arange(200), np.arange(500)[:, np.newaxis])
    count = u.size
    assert 0 < u.min() < u.max() < 1
    assert abs(u.mean() - 0.5) < FIVE_SIGMA / math.sqrt(12 * count)
    assert abs(u.var() - 1 / 12) < FIVE_SIGMA / math.sqrt(180 * count)
    for other in (uniform(8, "x", *np.ogrid[:500, :200][::-1]), uniform(7, "y", *np.ogrid[:500, :200][::-1]), u[::-1]):
        assert abs(np.corrcoef(u.ravel(), other.ravel())[0, 1]) < FIVE_SIGMA / math.sqrt(count)
    assert abs(np.corrcoef(u[:, 1:].ravel(), u[:, :-1].ravel())[0, 1]) < FIVE_SIGMA / math.sqrt(count)


def test_exponential_numbers_have_their_mean():
    drawn = exponential(3.0, uniform(1, "x", np.arange(100_000)))
    assert drawn.mean() == pytest.approx(3.0, abs=FIVE_SIGMA * 3.0 / math.sqrt(100_000))


@pytest.mark.parametrize("t_s", [0, 50, 3_999])
def test_links_are_in_order_with_the_long_run_probability_at_all_times(t_s):
    up = times().up(np.array([t_s * S]))[0]
    assert up.mean() == pytest.approx(0.75, abs=FIVE_SIGMA * math.sqrt(0.75 * 0.25 / len(LINKS)))


def test_times_to_failure_and_repair_have_their_means():
    up = times().up(np.arange(4_000) * S)
    changes = np.diff(up.astype(np.int8), axis=0)
    failures, repairs = (changes == -1).sum(), (changes == 1).sum()
    # a step of 1 s hides what is shorter: a share of about 1/300 and 1/100
    assert up[:-1].sum() / failures == pytest.approx(300, rel=FIVE_SIGMA / math.sqrt(failures) + 0.015)
    assert (~up[:-1]).sum() / repairs == pytest.approx(100, rel=FIVE_SIGMA / math.sqrt(repairs) + 0.015)


def test_outages_depend_on_nothing_but_seed_and_link():
    t_ns = np.arange(0, 4_000, 7) * S
    whole = times().up(t_ns)
    assert (np.concatenate([times().up(t_ns[:100]), times().up(t_ns[100:])]) == whole).all()
    assert (times(LINKS[::-1]).up(t_ns)[:, ::-1] == whole).all()
    assert (times(LINKS[5:6]).up(t_ns) == whole[:, 5:6]).all()
    assert (times(duration_ns=8_000 * S).up(t_ns) == whole).all()
    assert (times(seed=2).up(t_ns) != whole).mean() == pytest.approx(2 * 0.75 * 0.25, abs=0.02)


def test_links_without_outages_are_always_in_order():
    assert OutageTimes(1, None, LINKS, LINKS, S).up(np.array([0, S])).all()


def test_jitter_loses_its_mean_and_holds_for_an_interval():
    jitter = Jitter.model_validate({"mean_loss_ratio": 0.01, "interval": "10 s"})
    t_ns = np.arange(0, 10_000, 10) * S
    ratio = jitter_loss_ratio(1, jitter, *np.broadcast_arrays(LINKS[:100, np.newaxis], 5, t_ns))
    assert ratio.mean() == pytest.approx(0.01, abs=FIVE_SIGMA * 0.01 / math.sqrt(ratio.size))
    assert ratio.std() == pytest.approx(0.01, rel=0.05)
    within = jitter_loss_ratio(1, jitter, *np.broadcast_arrays(LINKS[:100, np.newaxis], 5, t_ns + 9 * S))
    assert (within == ratio).all()
    assert len(np.unique(ratio)) == ratio.size


def test_without_jitter_nothing_is_lost_and_no_loss_exceeds_all():
    assert jitter_loss_ratio(1, None, LINKS, LINKS, LINKS).tolist() == [0.0] * len(LINKS)
    heavy = Jitter.model_validate({"mean_loss_ratio": 1.0})
    assert jitter_loss_ratio(1, heavy, LINKS, LINKS, LINKS * S).max() == 1.0


def test_an_outage_shorter_than_a_step_is_seen_to_have_broken_the_link():
    short = OutageTimes(1, outages("300 s", "1 ms"), LINKS, LINKS + 10_000, 4_000 * S)
    t_ns = np.arange(0, 4_000, 10) * S
    assert short.up(t_ns).mean() > 0.999
    broken = short.broken(t_ns, 10 * S)
    assert not broken[0].any()
    assert broken.sum() / (len(LINKS) * 4_000) == pytest.approx(1 / 300, rel=0.05)
