"""Questions to a server that may still be loading its model."""

from __future__ import annotations

import json
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

from tests.runs import wait_for


def asked(url: str, body: dict[str, Any]) -> dict[str, Any]:
    """The server's answer, once it answers at all."""
    answers: list[dict[str, Any]] = []

    def answer() -> bool:
        try:
            request = Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
            answers.append(json.load(urlopen(request)))
        except URLError:
            return False
        return True

    wait_for(answer, f"an answer of {url}")
    return answers[0]
