"""The contact plan as configuration messages of uD3TN 0.15 (JSON), for each node those of its own neighbours.

Each message goes to the config endpoint of the node that it is listed under, for example with uD3TN's Python package.
Times are seconds since 2000-01-01T00:00:00Z (DTN time), rates bytes per second. A node called p00s00 is
`dtn://p00s00.dtn/` and listens for MTCP on port 4222 of a host of its name.

Source: ud3tn-utils 0.15.2 on PyPI, the schema of JSON configuration messages in `ud3tn_utils.config`.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

from isl_emu.export.directed import DirectedContact, directed_contacts, reference
from isl_emu.linkplan.plan import LinkPlan

DTN_EPOCH = datetime(2000, 1, 1, tzinfo=timezone.utc)  # RFC 9171, section 4.2.6
MTCP_PORT = 4222  # of uD3TN's own examples


def ud3tn_text(plan: LinkPlan) -> str:
    """A JSON object: each node's EID with the list of its messages."""
    first_s = round((reference(plan) - DTN_EPOCH).total_seconds())
    neighbours: dict[int, dict[int, list[DirectedContact]]] = {}
    for contact in directed_contacts(plan):
        neighbours.setdefault(contact.source, {}).setdefault(contact.destination, []).append(contact)
    names = plan.nodes.names
    messages = {
        _eid(names[node]): [_message(names[other], contacts, first_s) for other, contacts in sorted(found.items())]
        for node, found in sorted(neighbours.items())
    }
    return json.dumps({"format": "uD3TN 0.15 JSON configuration messages", "nodes": messages}, indent=1) + "\n"


def _message(name: str, contacts: list[DirectedContact], first_s: int) -> dict[str, Any]:
    spans = [(first_s + contact.start_s, first_s + contact.end_s, contact.rate_byte_s) for contact in contacts]
    return {
        "command": "ADD",
        "node_id": _eid(name),
        "cla_addr": f"mtcp:{name}:{MTCP_PORT}",
        "contact_list": [{"start": start, "end": end, "data_rate": rate} for start, end, rate in spans],
    }


def _eid(name: str) -> str:
    return f"dtn://{name}.dtn/"
