"""What a setting needs and this machine lacks, found before anything is started. Pure.

Only what is certain is reported. Everything else is left to the server, whose own message then
appears in the study.
"""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches

from harness.engines.config import (
    SIM_NUM_GPUS,
    Engine,
    ExternalEngine,
    ServeSettings,
    SimEngine,
    VllmEngine,
)
from harness.engines.flags import flag_of, knows
from harness.engines.parallel import ranks, tensor_parallel_size
from harness.engines.vllm import flags as arguments
from harness.engines.vllm import serving
from harness.model import Model
from harness.sim.options import refusal
from monitors.nvml import Gpu

# Minimum compute capabilities as (major, minor), from the source of vLLM 0.25.1.
# Where the tensor cores cannot compute in FP8, Marlin kernels read FP8 weights
# (model_executor/layers/quantization: get_min_capability of each method).
QUANTIZATION = {"fp8": (7, 5), "modelopt": (8, 9), "mxfp4": (8, 0), "fp_quant": (10, 0)}
# Below this, no attention backend supports an FP8 KV cache: FlashAttention needs 9.0, Triton 8.9,
# FlashInfer 8.0 (v1/attention/backends: supports_kv_cache_dtype, supports_compute_capability).
FP8_KV_CACHE = (8, 0)
BFLOAT16 = (8, 0)  # platforms/cuda.py: check_if_supports_dtype
NEAR = 0.75  # difflib's ratio, high because all flags share their dashes and many share words


def obstacle(
    engine: Engine, model: Model, gpus: Sequence[Gpu], flags: frozenset[str] | None
) -> str | None:
    """Why no server with this setting can run here, in a sentence; None if no reason is known.

    `gpus`: those that servers may use; none on a CPU. `flags`: those that the installed vLLM knows;
    None if they could not be read.
    """
    match engine:
        case VllmEngine():
            told = [
                *_heads(engine, model),
                *_count(engine, len(gpus), _here(len(gpus))),
                *_capability(engine, gpus),
                *_unknown(engine, flags),
            ]
        case SimEngine():
            imitated = f"the simulator imitates a machine with {SIM_NUM_GPUS}"
            told = [
                *_heads(engine, model),
                *_count(engine, SIM_NUM_GPUS, imitated),
                *_refused(engine),
            ]
        case ExternalEngine():
            told = []
    return "; ".join(told) or None


def _heads(engine: ServeSettings, model: Model) -> Iterator[str]:
    asked = engine.tensor_parallel_size or 1
    if (fits := tensor_parallel_size(model, asked)) != asked:
        yield (
            f"engine.tensor_parallel_size={asked}: the heads of {model.name} cannot be spread over"
            f" {asked} GPUs, over {fits} they can"
        )


def _count(engine: ServeSettings, num_gpus: int, here: str) -> Iterator[str]:
    """`here` says how many GPUs there are. With none (on a CPU), they are not counted."""
    if num_gpus and ranks(engine) > num_gpus:
        names = ("tensor_parallel_size", "data_parallel_size", "replicas")
        asked = [f"engine.{n}={size}" for n in names if (size := getattr(engine, n) or 1) > 1]
        yield f"{' times '.join(asked)} wants {ranks(engine)} GPUs, and {here}"


def _here(num_gpus: int) -> str:
    return f"{num_gpus} GPU{' is' if num_gpus == 1 else 's are'} here"


def _capability(engine: ServeSettings, gpus: Sequence[Gpu]) -> Iterator[str]:
    known = [(g.compute_capability, g.name) for g in gpus[: ranks(engine)] if g.compute_capability]
    if not known:
        return
    has, name = min(known)
    for setting, wanted in _wanted(engine):
        if has < wanted:
            yield (
                f"{setting} wants compute capability {wanted[0]}.{wanted[1]}, and {name} has"
                f" {has[0]}.{has[1]}"
            )


def _wanted(engine: ServeSettings) -> Iterator[tuple[str, tuple[int, int]]]:
    """The settings that need a certain compute capability, and which."""
    if engine.quantization in QUANTIZATION:
        yield f"engine.quantization={engine.quantization}", QUANTIZATION[engine.quantization]
    if (engine.kv_cache_dtype or "").startswith("fp8"):
        yield f"engine.kv_cache_dtype={engine.kv_cache_dtype}", FP8_KV_CACHE
    if engine.dtype == "bfloat16":
        yield "engine.dtype=bfloat16", BFLOAT16


def _refused(engine: SimEngine) -> Iterator[str]:
    if (why := refusal(arguments(serving(engine)))) is not None:
        yield f"the simulator refuses {why}; what it takes: python -m harness.sim --help"


def _unknown(engine: ServeSettings, flags: frozenset[str] | None) -> Iterator[str]:
    for name, value in serving(engine).items():
        flag = flag_of(name)
        if flags is not None and value is not None and not knows(flags, flag):
            setting = f"engine.extra.{name}" if name in engine.extra else f"engine.{name}"
            near = get_close_matches(flag, flags, n=1, cutoff=NEAR)
            hint = f" (did you mean {near[0]}?)" if near else ""
            yield f"{setting}: this vLLM has no flag {flag}{hint}"
