"""Short HTTP requests to a server, about its start and its state. Load is sent by `loadgen`.

Never through a proxy: one set in the environment is meant for the outside, and would answer for
127.0.0.1.
"""

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back: a status and a body."""

    status: int
    body: str

    def json(self) -> Any:
        """The body as JSON; None if it is not JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


def request(
    url: str, *, timeout_s: float, body: object = None, headers: Mapping[str, str] | None = None
) -> Answer:
    """GET, or POST `body` as JSON. Raises OSError: refused, reset, cut off, TimeoutError."""
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    connect = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    connection = connect(parts.hostname or "", parts.port, timeout=timeout_s)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        if body is None:
            connection.request("GET", target, headers=dict(headers or {}))
        else:
            told = {"Content-Type": "application/json", **(headers or {})}
            connection.request("POST", target, json.dumps(body), told)
        answer = connection.getresponse()
        return Answer(status=answer.status, body=answer.read().decode(errors="replace"))
    except http.client.HTTPException as error:
        raise ConnectionError(f"{type(error).__name__}: {error}") from error
    finally:
        connection.close()


def page(url: str, *, timeout_s: float = 5.0, headers: Mapping[str, str] | None = None) -> str:
    """The body of a page; empty if there is no such page, or no answer."""
    try:
        answer = request(url, timeout_s=timeout_s, headers=headers)
    except OSError:
        return ""
    return answer.body if answer.status == 200 else ""


def refusal(
    url: str, model: str, *, timeout_s: float, headers: Mapping[str, str] | None = None
) -> str | None:
    """Ask for one token: None if it comes, else why it did not. Raises OSError like `request`.

    `/health` proves nothing: a server may answer 200 there, and die of its first request.
    """
    body = {"model": model, "prompt": [1, 2, 3], "max_tokens": 1, "temperature": 0}
    answer = request(f"{url}/v1/completions", timeout_s=timeout_s, body=body, headers=headers)
    content = answer.json()
    if answer.status == 200 and isinstance(content, dict):
        tokens = (content.get("usage") or {}).get("completion_tokens", 0)
        if content.get("choices") and tokens >= 1:
            return None
    text = " ".join(answer.body.split())
    return f"HTTP {answer.status}: {text[:300]}"
