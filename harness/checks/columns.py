"""What the checks of an engine setting put into its rows. Pure."""

from collections.abc import Mapping
from typing import Any

NOTHING: dict[str, Any] = {
    "longest_context_tokens": None,
    "longest_context_s": None,
    "longest_context_limit": None,
    "offline_output_tok_per_s": None,
}


def columns_of(found: Mapping[str, Mapping[str, Any] | None]) -> dict[str, Any]:
    """`found`: what each check recorded, by its name; a failed one gives nothing but its reason."""
    row = dict(NOTHING)
    if context := _ok(found.get("longest_context")):
        row["longest_context_tokens"] = context["tokens"]
        row["longest_context_s"] = context["took_s"]
        row["longest_context_limit"] = context["limit"]
    if offline := _ok(found.get("offline")):
        row["offline_output_tok_per_s"] = offline["output_tok_per_s"]
    return row


def _ok(record: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    return record if record is not None and record["status"] == "ok" else None
