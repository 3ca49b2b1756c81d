"""Ways in which the simulator can be told to misbehave, for the harness's own tests.

die_at_start            a missing module, as vLLM reports it; exit code 1
oom_at_start            out of GPU memory while loading; exit code 1
slow_start_s=X          starts X seconds later
die_after_tokens=N      the process exits without cleaning up after N generated tokens in total
die_over_prompt_of=N    the same at a prompt of more than N tokens
hang_after_tokens=N     no more tokens after N in total; /health still says 200
no_first_token          never a token; /health says 200
error_chunk_every=N     every Nth request gets HTTP 200 and one error chunk, as from a broken engine
truncate_every=N        every Nth stream is cut off halfway: no finish_reason, no [DONE]
"""

from argparse import ArgumentTypeError
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """At most one field is set."""

    die_at_start: bool = False
    oom_at_start: bool = False
    slow_start_s: float = 0.0
    die_after_tokens: int | None = None
    die_over_prompt_of: int | None = None
    hang_after_tokens: int | None = None
    error_chunk_every: int | None = None
    truncate_every: int | None = None


FLAGS = {
    "die_at_start": Fault(die_at_start=True),
    "oom_at_start": Fault(oom_at_start=True),
    "no_first_token": Fault(hang_after_tokens=0),
}
COUNTS: dict[str, Callable[[int], Fault]] = {
    "die_after_tokens": lambda number: Fault(die_after_tokens=number),
    "die_over_prompt_of": lambda number: Fault(die_over_prompt_of=number),
    "hang_after_tokens": lambda number: Fault(hang_after_tokens=number),
    "error_chunk_every": lambda number: Fault(error_chunk_every=number),
    "truncate_every": lambda number: Fault(truncate_every=number),
}


def parse_fault(text: str) -> Fault:
    """`KIND` or `KIND=NUMBER`."""
    kind, _, number = text.partition("=")
    try:
        if text in FLAGS:
            return FLAGS[text]
        if kind == "slow_start_s":
            return Fault(slow_start_s=float(number))
        if kind in COUNTS and int(number) > 0:
            return COUNTS[kind](int(number))
    except ValueError:
        pass
    raise ArgumentTypeError(f"no such fault: {text!r} (see harness/sim/fault.py)")
