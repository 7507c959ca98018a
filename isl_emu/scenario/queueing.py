"""The queue at each end of a link: how long it may get, and what keeps it short before it is full."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from isl_emu.scenario.quantities import Duration, Record

MANAGED = ("codel", "fq_codel", "cake")  # these drop or mark before the queue is full
TARGET_NS, INTERVAL_NS = 5_000_000, 100_000_000  # RFC 8289, sections 4.3 and 4.4; RFC 8290, section 5.2


class QueueTerms(Record):
    """The queue of each end of a link.

    `aqm`: "none" drops at the tail and counts packets, "bfifo" drops there and counts bytes, the others act before.
    `ecn`: mark packets of flows that can be marked, instead of dropping them.
    """

    queue_ns: Duration = Field(alias="queue", default=20_000_000)
    aqm: Literal["none", "bfifo", "codel", "fq_codel", "cake"] = "none"
    aqm_target_ns: Duration = Field(alias="aqm_target", default=TARGET_NS)
    aqm_interval_ns: Duration = Field(alias="aqm_interval", default=INTERVAL_NS)
    ecn: bool = True

    @model_validator(mode="after")
    def _managed(self) -> QueueTerms:
        tuned = (self.aqm_target_ns, self.aqm_interval_ns, self.ecn) != (TARGET_NS, INTERVAL_NS, True)
        if tuned and self.aqm not in MANAGED:
            raise ValueError(
                f'has aqm = "{self.aqm}" with aqm_target, aqm_interval or ecn, but only {", ".join(MANAGED)} have '
                f"them; remove them or choose one of these"
            )
        if self.aqm_target_ns > self.aqm_interval_ns:
            raise ValueError(
                "has an aqm_target that is longer than aqm_interval, but it is a small part of it; exchange them"
            )
        if self.aqm == "cake" and not self.ecn:
            raise ValueError('has ecn = false with aqm = "cake", but CAKE always marks; remove ecn')
        return self
