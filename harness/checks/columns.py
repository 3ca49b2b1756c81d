"""What the checks of an engine setting put into its rows. Pure."""

from collections.abc import Mapping
from typing import Any

# What a load must have in common with the one that was given to vLLM without a server.
OFFLINE_ALIKE = ("input_tokens", "output_tokens", "prompts", "conversation", "ignore_eos")

NOTHING: dict[str, Any] = {
    "longest_context_tokens": None,
    "longest_context_s": None,
    "longest_context_limit": None,
    "offline_output_tok_per_s": None,
}


def columns_of(
    found: Mapping[str, Mapping[str, Any] | None], load: Mapping[str, Any]
) -> dict[str, Any]:
    """`found`: what each check recorded, by its name; a failed one gives nothing.

    `load` is the row's: a throughput without a server is told where its lengths are the same.
    """
    row = dict(NOTHING)
    if context := _ok(found.get("longest_context")):
        row["longest_context_tokens"] = context["tokens"]
        row["longest_context_s"] = context["took_s"]
        row["longest_context_limit"] = context["limit"]
    if (offline := _ok(found.get("offline"))) and _is_alike(offline["load"], load):
        row["offline_output_tok_per_s"] = offline["output_tok_per_s"]
    return row


def _is_alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    is_trace = "trace" in (one["arrival"], other["arrival"])
    return not is_trace and all(one.get(name) == other.get(name) for name in OFFLINE_ALIKE)


def _ok(record: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    return record if record is not None and record["status"] == "ok" else None
