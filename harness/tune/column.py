"""The columns that a tuning may name: what measuring them needs, which goals are absurd. Pure."""

from collections.abc import Collection, Sequence

from harness.checks.config import Checks
from harness.direction import better
from loadgen.config import Load, Slo

OF_STREAMS = ("ttft_", "tpot_", "itl_", "output_tok_per_s_per_user")
OF_SEARCH = ("capacity_",)
OF_LIMITS = ("goodput_", "slo_met_", *OF_SEARCH)
# Settings that change what is computed: only these can change accuracy.
NUMERICS = ("dtype", "quantization", "kv_cache_dtype")
ACCURACY = ("kl_", "top1_", "perplexity", "exact_match_", "common_prefix_")


def wrong_way(maximised: Sequence[str], minimised: Sequence[str]) -> str | None:
    """A sentence about the first goal that is optimised in the wrong direction, or None."""
    for names, worse, other in ((maximised, "low", "minimise"), (minimised, "high", "maximise")):
        for name in names:
            if better(name) == worse:
                return f"'{name}' is better {worse}: name it under tune.{other}"
    return None


def lacking(
    names: Collection[str], loads: Sequence[Load], slo: Slo, checks: Checks, space: Collection[str]
) -> str | None:
    """A sentence about the first column that these loads, limits and checks cannot produce."""
    for name in names:
        if name.startswith(OF_SEARCH) and any(load.search is None for load in loads):
            return (
                f"'{name}' is what load.search finds, and this load has none: set"
                " 'load.search={probes: 12}' in place of a rate or a concurrency"
            )
        if name.startswith(OF_STREAMS) and not all(load.stream for load in loads):
            return f"'{name}' is not to be seen with load.stream=false: take e2e, or stream"
        if name.startswith(OF_LIMITS) and not slo.is_set:
            return f"'{name}' needs limits: set slo.ttft_s, slo.tpot_s or slo.e2e_s"
        is_asked = checks.accuracy is not None
        if name.startswith(ACCURACY) and not is_asked and any(n in NUMERICS for n in space):
            return f"'{name}' is measured by a check, and none is asked for: set checks.accuracy"
    return None
