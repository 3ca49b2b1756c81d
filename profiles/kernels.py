"""What a kernel is for, by its name.

The first pattern in the table that matches decides, so special cases come before general ones:
`reshape_and_cache_flash_kernel` writes the cache and is not attention; FlashAttention is a cutlass
`device_kernel` and not a GEMM. The patterns come from the kernels of vLLM 0.25 on Hopper, the
operators of its CPU build, and the names that vLLM, PyTorch, NCCL, FlashInfer, Triton and cuBLAS
give their kernels. What matches none is OTHER, and the page says how much that is.
"""

import re
from enum import StrEnum
from functools import lru_cache


class KernelClass(StrEnum):
    GEMM = "GEMM"
    ATTENTION = "attention"
    COMMUNICATION = "communication"
    ELEMENTWISE = "norm, activation, elementwise"
    CACHE = "KV cache"
    SAMPLING = "sampling"
    COPY = "copy"
    GRAPH = "whole CUDA graph"  # traced as one piece: what ran in it is unknown
    OTHER = "other"


CLASSES = tuple(KernelClass)

PATTERNS: tuple[tuple[KernelClass, str], ...] = (
    (KernelClass.COPY, r"^\[?mem(cpy|set)\b|^cuda_?mem(cpy|set)"),
    (KernelClass.COMMUNICATION, r"nccl|cross_device_reduce|custom_?(all_?reduce|ar\b)|multimem"),
    (KernelClass.COMMUNICATION, r"all_?reduce|all_?gather|reduce_?scatter|all_?to_?all|nvshmem"),
    (KernelClass.COMMUNICATION, r"(one|two)_?shot|deep_?ep|c10d::|gloo|quick_?reduce|symm_mem"),
    (KernelClass.CACHE, r"reshape_and_cache|concat_and_cache|kv_cache_update|cache_kernel"),
    (KernelClass.CACHE, r"block_table|slot_mapping|copy_blocks|swap_blocks|gather_cache"),
    (KernelClass.ELEMENTWISE, r"triton_(poi|red|per)_|rms_?norm|rotary|act_and_mul"),
    (KernelClass.ELEMENTWISE, r"flashinfer::(norm|activation)"),
    (KernelClass.SAMPLING, r"flashinfer::sampling"),
    (KernelClass.ATTENTION, r"flash|fmha|attn|attention|paged|decode_mla|mla_|varlen_num_blocks"),
    (KernelClass.ATTENTION, r"batch(prefill|decode)with|get_scheduler_metadata"),
    (KernelClass.SAMPLING, r"gumbel|sample|arg_?max|top_?k_?top_?p|top_?p|multinomial|penalt"),
    (KernelClass.SAMPLING, r"rejection|rejected|draft_token|exponential|radix_?sort|topk_(?!soft)"),
    (KernelClass.GEMM, r"nvjet|gemm|gemv|cublas|splitk|wgmma|xmma|matmul|marlin|machete"),
    (KernelClass.GEMM, r"fused_moe|grouped_mm|scaled_mm|onednn|mkldnn|::(add|b|badd)?mm\b|_mm\b"),
    (KernelClass.GEMM, r"::linear\b|cutlass|triton_tem_"),
    (KernelClass.COPY, r"direct_copy|batchedcopy|::(copy_|_to_copy|to|cat)$"),
    (KernelClass.ELEMENTWISE, r"norm|silu|gelu|softmax|embedding|quant|moe_|topk|elementwise"),
    (KernelClass.ELEMENTWISE, r"reduce_kernel|gather|scatter|index|^aten::|at::native|triton_"),
)
_COMPILED = tuple((klass, re.compile(pattern, re.IGNORECASE)) for klass, pattern in PATTERNS)

# Wrappers whose name does not say what they run, and patterns that find it in their arguments.
_WRAPPER = re.compile(
    r"^(device_kernel|Kernel2?|reduce_kernel|kernel|.*elementwise_kernel(_with_index)?)$"
)
_INNER = re.compile(
    r"Flash\w*?(?:Fwd|Bwd)\w*|\w*direct_copy\w*|\w+Functor\b|\w+Ops\b|\w*Gemm\w*"
    r"|\b(?!gpu_)\w+_kernel_(?:cuda|impl)|\w*internal_kernel|arange\w*"
)
_NOISE = re.compile(r"^void |<unnamed>::|\(anonymous namespace\)::")


@lru_cache(maxsize=65_536)
def classify(name: str) -> KernelClass:
    """The class of a kernel, copy or operator, preferably by its full (demangled) name."""
    return next((klass for klass, found in _COMPILED if found.search(name)), KernelClass.OTHER)


@lru_cache(maxsize=65_536)
def readable(name: str) -> str:
    """The name without return type, arguments and template, which may have 2,000 characters.

    >>> readable("void vllm::cross_device_reduce_1stage<__nv_bfloat16, (int)2>(vllm::RankData *)")
    'vllm::cross_device_reduce_1stage'
    """
    name = _NOISE.sub("", name)
    bare = re.split(r"[<(]", name, maxsplit=1)[0].strip()
    if not bare or bare == name:
        return name
    if _WRAPPER.match(bare.rpartition("::")[2]) and (inner := _INNER.search(name, len(bare))):
        return f"{bare.rpartition('::')[2]}: {inner.group()}"
    return bare
