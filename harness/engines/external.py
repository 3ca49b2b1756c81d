"""A server that somebody else runs: checked and used, but neither started nor stopped."""

from collections.abc import Mapping
from pathlib import Path
from time import perf_counter

from harness.engines import http
from harness.engines.config import ExternalEngine
from harness.engines.facts import FIRST_TOKEN, MODELS, PAGES, facts_of
from harness.engines.failure import EngineFailed, Failure, FailureKind
from harness.engines.server import Server


def start(engine: ExternalEngine, folder: Path) -> Server:
    """Check that it answers and generates a token. Raises EngineFailed."""
    folder.mkdir(parents=True, exist_ok=True)
    url = engine.url.rstrip("/").removesuffix("/v1")
    (folder / "command.txt").write_text(f"# not started by the harness: {url}\n")
    started_at_s = perf_counter()
    timeout_s, headers = engine.first_token_timeout_s, engine.headers()
    try:
        model = engine.served_model or _first_model(url, timeout_s, headers)
        refusal = http.refusal(url, model, timeout_s=timeout_s, headers=headers)
    except TimeoutError:
        message = f"{url} generated no token within {timeout_s:.0f} s"
        raise _failed(FailureKind.HANGS, message) from None
    except OSError as error:
        message = f"{url} does not answer ({error}): check engine.url, and that the server runs"
        raise _failed(FailureKind.DIED_AT_START, message) from None
    if refusal is not None:
        for secret in headers.values():
            refusal = refusal.replace(secret.removeprefix("Bearer "), "***")
        message = f"{url} refused a request for one token: {refusal}"
        raise _failed(FailureKind.DIED_AT_START, message)
    pages = {path: http.page(f"{url}{path}", headers=headers) for path in PAGES}
    return Server(
        url=url,
        model=model,
        facts=facts_of("", pages),
        startup_s={FIRST_TOKEN: perf_counter() - started_at_s},
        first_token_timeout_s=engine.first_token_timeout_s,
    )


def _first_model(url: str, timeout_s: float, headers: Mapping[str, str]) -> str:
    answer = http.request(f"{url}{MODELS}", timeout_s=timeout_s, headers=headers)
    try:
        return str(answer.json()["data"][0]["id"])
    except (TypeError, KeyError, IndexError):
        message = f"{url}{MODELS} names no model (HTTP {answer.status}): set engine.served_model"
        raise _failed(FailureKind.MODEL_NOT_FOUND, message) from None


def _failed(kind: FailureKind, message: str) -> EngineFailed:
    return EngineFailed(Failure(kind=kind, message=message, evidence=()))
