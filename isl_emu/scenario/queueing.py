"""What every link has: the queue at each end, the longest packet, and a constant loss."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from isl_emu.scenario.quantities import Duration, Mtu, Record

Aqm = Literal["none", "bfifo", "codel", "fq_codel", "cake"]
MANAGED = ("codel", "fq_codel", "cake")  # these drop or mark before the queue is full
TARGET_NS, INTERVAL_NS = 5_000_000, 100_000_000  # RFC 8289, sections 4.3 and 4.4; RFC 8290, section 5.2


class QueueTerms(Record):
    """The queue of each end of a link, and what it carries.

    `aqm`: "none" and "bfifo" drop at the tail and count bytes, the others act before.
    `ecn`: mark packets of flows that can be marked, instead of dropping them.
    `mtu`: the longest IP packet. `loss_ratio`: of all packets, beside what else loses some.
    """

    queue_ns: Duration = Field(alias="queue", default=20_000_000)
    aqm: Aqm = "none"
    aqm_target_ns: Duration = Field(alias="aqm_target", default=TARGET_NS)
    aqm_interval_ns: Duration = Field(alias="aqm_interval", default=INTERVAL_NS)
    ecn: bool = True
    mtu_byte: Mtu = Field(alias="mtu", default=1500)
    loss_ratio: float = Field(ge=0.0, le=1.0, default=0.0)

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
