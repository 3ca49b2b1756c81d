"""What to try: rules, each with the evidence it needs and the reason why its advice should help.

A rule looks at the findings, and says nothing if its evidence is missing. None is a promise: the
next sweep measures whether it helped.
"""

from collections.abc import Callable
from dataclasses import dataclass

from profiles.devices import DeviceFindings, StepGroup
from profiles.findings import Findings
from profiles.gaps import Doing
from profiles.kernels import KernelClass
from profiles.markdown import percent, plural, time
from profiles.trace import StepKind

CPU_WAIT_FRAC = 0.10  # of the time of a kind of step
STEPS_FRAC = 0.10  # of the span: a kind of step that takes less is not what holds a server back
STALL_S = 0.010
STALLS_FRAC = 0.05  # of the span
EXPOSED_FRAC = 0.15
WAITING_FRAC = 0.50  # of communication
PREFILL_TIMES = 5.0  # how many times as long as a decode step a step with prompts takes
BUSY_FRAC = 0.90
CLASS_FRAC = 0.40
FEW_STEPS = 3
LAUNCHES_OF_A_STEP = 100  # outside graphs; a step that runs in graphs has only tens


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """One thing to try."""

    try_: str
    because: str  # the reason, the same for every trace
    evidence: str  # from this trace


Rule = Callable[[DeviceFindings], Advice | None]


def advice(findings: Findings) -> tuple[Advice, ...]:
    """What the rules say about the GPU that is idle longest."""
    gpus = [device for device in findings.devices if device.is_gpu]
    if not gpus:
        return ()
    device = max(gpus, key=lambda each: each.idle_frac)
    return tuple(told for rule in RULES if (told := rule(device)) is not None)


def graphs_off(device: DeviceFindings) -> Advice | None:
    decode = step_group(device, StepKind.DECODE)
    if not _cpu_bound(decode, device) or any(each.in_graphs for each in device.launches):
        return None
    assert decode is not None
    single = device.launches[0]
    return Advice(
        try_="turn CUDA graphs on (`enforce_eager=false`), with capture sizes up to the batch",
        because="a graph launches a whole step in one call; now the CPU pays for each kernel",
        evidence=f"no kernel of {single.activities:,} was a node of a graph, each cost the CPU "
        f"{time(single.call_s_per_activity)}, and decode steps wait {_waited(decode)} for it",
    )


def mixed_outside_graphs(device: DeviceFindings) -> Advice | None:
    mixed = step_group(device, StepKind.MIXED)
    single = next((each for each in device.launches if not each.in_graphs), None)
    has_graphs = any(each.in_graphs for each in device.launches)
    if mixed is None or not _cpu_bound(mixed, device) or single is None or not has_graphs:
        return None
    if single.activities < LAUNCHES_OF_A_STEP * mixed.num_steps:
        return None
    return Advice(
        try_="graphs for steps with prompts, too (`max_cudagraph_capture_size` of the compilation "
        "config, up to the tokens of such a step), or fewer tokens a step "
        "(`max_num_batched_tokens`)",
        because="vLLM captures graphs for small steps only; in a larger one the CPU launches every "
        "kernel, and is slower at that than the GPU at running them",
        evidence=f"steps with prompts hold {mixed.tokens_p50:,.0f} tokens and wait "
        f"{_waited(mixed)} for the CPU, which launched {single.activities:,} activities one by one",
    )


def scheduling_in_series(device: DeviceFindings) -> Advice | None:
    """Applies only with graphs: a CPU that launches kernel by kernel cannot run ahead."""
    decode = step_group(device, StepKind.DECODE)
    has_graphs = any(each.in_graphs for each in device.launches)
    if not _cpu_bound(decode, device) or decode is None or not has_graphs:
        return None
    if decode.overlapped_frac > 0.1:
        return None
    return Advice(
        try_="schedule asynchronously (`async_scheduling=true`)",
        because="then the CPU prepares a step while the one before still runs",
        evidence=f"{percent(1 - decode.overlapped_frac)} of the {decode.num_steps:,} decode steps "
        f"were begun only when the one before had ended, and wait {_waited(decode)}",
    )


def small_steps(device: DeviceFindings) -> Advice | None:
    decode = step_group(device, StepKind.DECODE)
    has_graphs = any(each.in_graphs for each in device.launches)
    if (
        not _cpu_bound(decode, device)
        or decode is None
        or not has_graphs
        or decode.overlapped_frac <= 0.1
    ):
        return None
    return Advice(
        try_="more requests in a step (`max_num_seqs`, concurrency), or a faster core for the "
        "workers (frequency, pinning)",
        because="the CPU's part of a step hardly grows with the batch, the GPU's does; graphs and "
        "overlapped scheduling are in use already",
        evidence=f"decode steps of {decode.requests_p50:.0f} requests take "
        f"{time(decode.time_mean_s)} and wait {_waited(decode)} for the CPU (means, with the "
        "profiler's cost in them)",
    )


def stalls(device: DeviceFindings) -> Advice | None:
    found = [
        gap for gap in device.longest_gaps if gap.length_s >= STALL_S and gap.doing == Doing.BETWEEN
    ]
    total_s = sum(gap.length_s for gap in found)
    if not found or total_s < STALLS_FRAC * device.span_s:
        return None
    return Advice(
        try_="look at what feeds the workers: is a request always waiting, is the API server's or "
        "the engine core's process at 100 % of a core? If the API server is, `api_server_count`",
        because="the worker neither called CUDA nor was in a step: it had been given none",
        evidence=f"{plural(len(found), 'gap')} of {time(STALL_S)} or more between engine steps, "
        f"{time(total_s)} or {percent(total_s / device.span_s)} of the time together",
    )


def ranks_apart(device: DeviceFindings) -> Advice | None:
    told = device.communication
    if told is None or told.waiting_s is None or told.exposed_frac < EXPOSED_FRAC:
        return None
    if told.waiting_s < WAITING_FRAC * told.time_s:
        return None
    return Advice(
        try_="keep the workers' processes apart and on cores near their GPU (NUMA), and look for "
        "what delays one of them",
        because="the time in collectives is not transfer but one rank waiting for another's launch",
        evidence=f"{time(told.waiting_s)} of {time(told.time_s)} in collectives are spent before "
        "the last rank has begun",
    )


def communication_exposed(device: DeviceFindings) -> Advice | None:
    told = device.communication
    if told is None or told.exposed_frac < EXPOSED_FRAC:
        return None
    if told.waiting_s is not None and told.waiting_s >= WAITING_FRAC * told.time_s:
        return None
    return Advice(
        try_="fewer ranks for the model, and replicas instead, if its weights fit "
        "(`tensor_parallel_size` down, `data_parallel_size` up)",
        because="tensor parallelism ends every layer in all-reduces that nothing hides; replicas "
        "have none",
        evidence=f"communication that nothing hides is {percent(told.exposed_frac)} of the time",
    )


def prefill_stalls_decode(device: DeviceFindings) -> Advice | None:
    mixed, decode = step_group(device, StepKind.MIXED), step_group(device, StepKind.DECODE)
    if mixed is None or decode is None or min(mixed.num_steps, decode.num_steps) < FEW_STEPS:
        return None
    if mixed.busy_p50_s < PREFILL_TIMES * decode.busy_p50_s:
        return None
    return Advice(
        try_="a smaller `max_num_batched_tokens` if the tail of the time between tokens matters "
        "(TTFT grows)",
        because="requests that are decoding get no token while a step with prompts runs",
        evidence=f"steps with prompts keep the GPU busy {time(mixed.busy_p50_s)} "
        f"({mixed.tokens_p50:,.0f} tokens), decode steps {time(decode.busy_p50_s)} (medians)",
    )


def gpu_bound(device: DeviceFindings) -> Advice | None:
    if device.busy_frac < BUSY_FRAC or not device.classes:
        return None
    largest = device.classes[0]
    settings = {
        str(KernelClass.GEMM): "weights of fewer bits (`quantization=fp8`), if accuracy allows",
        str(KernelClass.ATTENTION): "a KV cache of fewer bits (`kv_cache_dtype=fp8`), if accuracy "
        "allows",
    }
    if largest.frac < CLASS_FRAC or largest.name not in settings:
        return None
    return Advice(
        try_=settings[largest.name],
        because="the GPU hardly waits, so only less work on it helps, and this is most of it",
        evidence=f"busy {percent(device.busy_frac)} of the time, {percent(largest.frac)} of the "
        f"kernel time is {largest.name}",
    )


RULES: tuple[Rule, ...] = (
    graphs_off,
    mixed_outside_graphs,
    scheduling_in_series,
    stalls,
    small_steps,
    ranks_apart,
    communication_exposed,
    prefill_stalls_decode,
    gpu_bound,
)


def step_group(device: DeviceFindings, kind: StepKind) -> StepGroup | None:
    """All steps of a kind; None if there are none."""
    return next((group for group in device.step_kinds if group.kind == kind), None)


def _cpu_bound(steps: StepGroup | None, device: DeviceFindings) -> bool:
    """Whether these steps wait for the CPU, and take enough time to matter."""
    if steps is None or steps.cpu_wait_total_s is None or steps.num_steps < FEW_STEPS:
        return False
    matters = steps.time_total_s >= STEPS_FRAC * device.span_s
    return matters and steps.cpu_wait_total_s >= CPU_WAIT_FRAC * steps.time_total_s


def _waited(group: StepGroup) -> str:
    assert group.cpu_wait_total_s is not None
    frac = group.cpu_wait_total_s / group.time_total_s
    return f"{time(group.cpu_wait_mean_s)} ({percent(frac)} of their time)"
