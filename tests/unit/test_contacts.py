from __future__ import annotations

from dataclasses import replace

import numpy as np

from isl_emu.linkplan.contacts import contacts_with_terms, find_contacts
from isl_emu.linkplan.events import no_events
from tests.plans import MS, SECOND, make_plan

LASER, GROUND = (0, 1), (1, 2)


def test_a_contact_ends_where_its_link_is_first_down_or_the_run_ends():
    plan = make_plan(2, ["gs"], [{LASER: MS}, {LASER: MS, GROUND: MS}, {GROUND: MS}, {LASER: MS}])
    contacts = find_contacts(plan)
    assert contacts.link.tolist() == [0, 0, 1]
    assert contacts.start_ns.tolist() == [0, 3 * SECOND, SECOND]
    assert contacts.end_ns.tolist() == [2 * SECOND, 4 * SECOND, 3 * SECOND]


def test_the_terms_of_a_contact_are_those_of_its_own_rows():
    plan = make_plan(2, [], [{LASER: 5 * MS}, {LASER: 7 * MS}, {}, {LASER: 9 * MS}])
    huge = 4_000_000_000_000_000_000  # the sum of two overflows
    plan = replace(
        plan,
        row_rate_ab_bit_s=np.array([huge, huge + 2, 7]),
        row_loss_ratio=np.array([0.0, 0.5, 0.125]),
        events=no_events(),
    )
    terms = contacts_with_terms(plan)[1]
    assert terms.delay_min_ns.tolist() == [5 * MS, 9 * MS]
    assert terms.delay_max_ns.tolist() == [7 * MS, 9 * MS]
    assert terms.rate_ab_bit_s.tolist() == [huge + 1, 7]
    assert terms.loss_ratio.tolist() == [0.25, 0.125]


def test_a_plan_without_links_has_no_contacts():
    contacts, terms = contacts_with_terms(make_plan(2, [], [{}, {}]))
    assert len(contacts.link) == len(terms.loss_ratio) == 0
