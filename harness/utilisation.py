"""How close a run came to what its GPUs can do: MFU and MBU, from the model's shape.

They count what a dense decoder must compute and read for the tokens processed, and nothing that an
implementation adds. So MFU and MBU say how well the hardware was used, not how busy it was; GPM
says the latter (`sm_activity_frac`, `dram_bandwidth_frac`).

    FLOPs of a token          2 · layer parameters + 4 · layers · heads · head dim · context
    plus, of an output token  2 · head parameters (of a prompt, only the last token needs logits)

    context   the tokens that it attends to: on average half of the prompt for a prompt token, and
              the prompt and half of the reply for an output token (m/2 and m + n/2)

This is the forward third of PaLM's 6N + 12·L·H·Q·T (Chowdhery et al. 2022, arXiv:2204.02311,
appendix B), split into prompt and reply and with a causal context, which is half of PaLM's T.

    bytes of a step           weights of layers and head, once, however many tokens it has
    plus, of an output token  keys and values of its context

The bytes leave out activations, writes, and what prompts read of their own cache.

MFU and MBU are relative to peaks measured on these very GPUs, else to the data sheet's
(harness/ceilings.py); `ceiling` says which.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from harness.ceilings import CEILINGS, Ceiling
from harness.model import Model, config_of
from harness.sim.decoder import BYTES_OF, Decoder

# Keys of config.json for models to which the formulas do not apply: experts, a cache other than
# keys and values, weights of another type than `torch_dtype`.
OTHERWISE = re.compile("expert|kv_lora|mamba|ssm|linear_attn|quantization_config")
GPUS = re.compile(r"(\d+)x ([^,]+)")  # of one kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What went through the server in the window."""

    prompt_tok_per_s: float  # computed ones, without prefix cache hits
    output_tok_per_s: float
    input_tokens_mean: float
    output_tokens_mean: float
    steps_per_s: float | None  # of all engines


@dataclass(frozen=True, slots=True, kw_only=True)
class Formats:
    """The types in which a server computes and stores values."""

    compute: str
    layer_bytes: float  # of a weight
    head_bytes: float
    kv_bytes: float


def decoder_of(model: Mapping[str, Any]) -> Decoder | None:
    """The sizes of study.json's model: its shape, or the config.json found on this machine.

    None if there is none, or if the model is not a dense decoder.
    """
    try:
        config = model.get("shape") or config_of(Model(**model))
        if not config or not _is_plain(config):
            return None
        return Decoder.of(config)
    except (KeyError, TypeError, ValueError, OSError, ValidationError):
        return None


def _is_plain(config: Mapping[str, Any]) -> bool:
    """Whether every layer is dense and attends to the whole context."""
    layers = set(config.get("layer_types") or ["full_attention"])
    return layers == {"full_attention"} and not any(
        OTHERWISE.search(name) and config[name] for name in config
    )


def formats_of(engine: Mapping[str, Any], decoder: Decoder) -> Formats | None:
    """The formats by the engine's settings; None if unknown, e.g. for 4-bit weights."""
    dtype = engine.get("dtype") or "auto"
    base = {"half": "float16"}.get(dtype, decoder.dtype if dtype == "auto" else dtype)
    if base not in ("bfloat16", "float16"):
        return None
    quantization = engine.get("quantization")
    if quantization not in (None, "fp8"):
        return None
    cache = engine.get("kv_cache_dtype") or "auto"
    if not (cache == "auto" or cache.startswith("fp8") or cache in BYTES_OF):
        return None
    return Formats(
        compute="fp8" if quantization else base,
        layer_bytes=1 if quantization else BYTES_OF[base],
        head_bytes=BYTES_OF[base],  # vLLM does not quantise the head
        kv_bytes=1 if cache.startswith("fp8") else BYTES_OF.get(cache, BYTES_OF[base]),
    )


def flops_per_s(decoder: Decoder, traffic: Traffic) -> float:
    """Model FLOPs per second for these tokens, by the formula of the module's docstring."""
    prompt, reply = traffic.input_tokens_mean, traffic.output_tokens_mean
    width = 4 * decoder.num_hidden_layers * decoder.num_attention_heads * decoder.head_dim
    of_prompt_token = 2 * decoder.layer_parameters + width * prompt / 2
    of_output_token = (
        2 * decoder.layer_parameters + 2 * decoder.head_parameters + width * (prompt + reply / 2)
    )
    return traffic.prompt_tok_per_s * of_prompt_token + traffic.output_tok_per_s * of_output_token


def bytes_per_s(
    decoder: Decoder, traffic: Traffic, formats: Formats, tensor_parallel_size: int
) -> float | None:
    """Bytes per second that all GPUs together must read; None if the steps were not counted.

    With tensor parallelism each rank reads its part of the weights and of the cache. If there are
    more ranks than KV heads, heads are replicated.
    """
    if traffic.steps_per_s is None:
        return None
    weights = (
        decoder.layer_parameters * formats.layer_bytes
        + decoder.head_parameters * formats.head_bytes
    )
    per_rank = decoder.kv_bytes_per_token(tensor_parallel_size, 1) * formats.kv_bytes
    context = traffic.input_tokens_mean + traffic.output_tokens_mean / 2
    cache = traffic.output_tok_per_s * context * per_rank * tensor_parallel_size
    return traffic.steps_per_s * weights + cache


def utilisation(
    row: Mapping[str, Any],
    engine: Mapping[str, Any],
    decoder: Decoder | None,
    measured: Ceiling | None = None,
) -> dict[str, Any]:
    """The columns mfu_frac, mbu_frac and ceiling of a row; None for what cannot be computed.

    MFU = model FLOPs per second / (peak · GPUs); MBU is the same for bytes. The peaks are
    `measured` if it has the type of the computation, else the data sheet's. Steps are counted by
    vLLM, which counts only those that produced tokens: a step with nothing but a part of a long
    prompt is not counted, so MBU is then a lower bound. Several API servers count each step several
    times, so there is no MBU with them.
    """
    nothing: dict[str, Any] = {"mfu_frac": None, "mbu_frac": None, "ceiling": None}
    served = GPUS.fullmatch(row.get("gpus") or "")
    formats = formats_of(engine, decoder) if decoder else None
    if served is None or row["simulated"] or decoder is None or formats is None:
        return nothing
    ceiling = CEILINGS.get(served[2])
    if measured is not None and formats.compute in measured.flops_per_s:
        ceiling = measured
    if ceiling is None:
        return nothing
    traffic = _traffic(row, engine)
    if traffic is None or formats.compute not in ceiling.flops_per_s:
        return nothing
    num_gpus = int(served[1])
    read = bytes_per_s(decoder, traffic, formats, int(row.get("tensor_parallel_size") or 1))
    return {
        "mfu_frac": flops_per_s(decoder, traffic)
        / (ceiling.flops_per_s[formats.compute] * num_gpus),
        "mbu_frac": None if read is None else read / (ceiling.memory_bytes_per_s * num_gpus),
        "ceiling": ceiling.source,
    }


def _traffic(row: Mapping[str, Any], engine: Mapping[str, Any]) -> Traffic | None:
    names = ("output_tok_per_s", "total_tok_per_s", "input_tokens_mean", "output_tokens_mean")
    output, total, prompt, reply = (row.get(name) for name in names)
    if output is None or total is None or prompt is None or reply is None:
        return None
    cached = row.get("prefix_cache_hit_frac") or 0.0
    # By default one per data parallel engine (vLLM 0.25.1, entrypoints/cli/serve.py).
    api_servers = engine.get("api_server_count") or engine.get("data_parallel_size") or 1
    return Traffic(
        prompt_tok_per_s=(total - output) * (1 - cached),
        output_tok_per_s=output,
        input_tokens_mean=prompt,
        output_tokens_mean=reply,
        steps_per_s=row.get("server_steps_per_s") if api_servers == 1 else None,
    )


def joules_per_output_token(row: Mapping[str, Any]) -> float | None:
    """gpu_energy_j / output tokens in the window; it includes the energy of prompts and idling."""
    energy_j, rate, window_s = (
        row.get(n) for n in ("gpu_energy_j", "output_tok_per_s", "window_s")
    )
    return energy_j / (rate * window_s) if energy_j is not None and rate and window_s else None
