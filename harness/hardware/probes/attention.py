"""Attention as in serving: one new token against a paged cache, and a whole prompt at once.

Decode reads every key and value of every request once, for one token per request. Its FLOPs are
4 · requests · heads · context · dim, over 2 · requests · KV heads · context · dim · 2 bytes. With g
query heads per KV head, the intensity is g FLOP per byte, far below any card's ridge, so it is
memory-bound; scattered pages make it a gather.

Prefill has 4 · requests · heads · tokens² / 2 · dim FLOPs, because causality leaves half, over
inputs and output of 4 · tokens values: it is compute-bound.
"""

import torch
from torch.nn import functional

from .bench import Bench
from .kernel import Kernel

REQUESTS, CONTEXT, PAGE = 128, 4096, 16
HEADS, KV_HEADS, DIM = 32, 8, 128
PROMPTS, TOKENS = 4, 4096
CHECKED_REQUESTS, CHECKED_TOKENS = 4, 64
TILE, LEAST_ROWS = 64, 16


def paged_decode(bench: Bench, name: str) -> Kernel:
    from .triton_kernels import paged_decode as kernel

    requests, context = bench.size(REQUESTS, 2), bench.size(CONTEXT, 96)
    heads, kv_heads, dim = bench.size(HEADS, 4), bench.size(KV_HEADS, 2), bench.size(DIM, 16)
    dtype = torch.bfloat16 if bench.is_cuda else torch.float32
    per_request = context // PAGE
    pages = requests * per_request
    query = bench.normal(requests, heads, dim, dtype=dtype)
    keys, values = (bench.normal(pages, PAGE, kv_heads, dim, dtype=dtype) for _ in range(2))
    order = torch.randperm(pages, generator=bench.random, device=bench.device)
    pages_of = order.view(requests, per_request).to(torch.int32)
    lengths = torch.full((requests,), context, dtype=torch.int32, device=bench.device)
    result = torch.full_like(query, float("nan"))
    group, scale = heads // kv_heads, dim**-0.5

    def call() -> None:
        kernel[(requests, kv_heads)](
            query,
            keys,
            values,
            pages_of,
            lengths,
            result,
            scale,
            per_request,
            KV_HEADS=kv_heads,
            GROUP=group,
            ROWS=max(LEAST_ROWS, group),
            DIM=dim,
            PAGE=PAGE,
            TILE=TILE,
            num_warps=4,
            num_stages=3,
        )

    def checked() -> tuple[torch.Tensor, torch.Tensor]:
        some = slice(0, CHECKED_REQUESTS)
        reference = plain_decode(query[some].double(), keys, values, pages_of[some])
        return result[some], reference

    first = pages_of[0].long()
    cpu_query, cpu_keys, cpu_values = (
        part.cpu().float() for part in (query[:1], keys[first], values[first])
    )
    in_order = torch.arange(per_request).view(1, per_request)
    return Kernel(
        name=name,
        unit="B/s",
        how="Triton",
        flops=4.0 * requests * heads * context * dim,
        moved_bytes=keys.nbytes + values.nbytes + 2.0 * query.nbytes,
        call=call,
        plain=lambda: plain_decode(query, keys, values, pages_of),
        checked=checked,
        error_limit=2e-2,
        cpu=lambda: plain_decode(cpu_query, cpu_keys, cpu_values, in_order),
        cpu_share=1 / requests,
        detail={
            "requests": requests,
            "context": context,
            "page": PAGE,
            "heads": heads,
            "kv_heads": kv_heads,
            "dim": dim,
        },
    )


def plain_decode(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, pages_of: torch.Tensor
) -> torch.Tensor:
    """Gather the pages into one array per request, then softmax(q·kᵀ)·v in the query's type."""
    requests, heads, dim = query.shape
    kv_heads = keys.shape[2]
    flat = (requests, -1, kv_heads, dim)
    k = keys[pages_of.long()].reshape(flat).to(query.dtype)
    v = values[pages_of.long()].reshape(flat).to(query.dtype)
    grouped = query.view(requests, kv_heads, heads // kv_heads, dim)
    scores = torch.einsum("rhgd,rthd->rhgt", grouped, k) * dim**-0.5
    result = torch.einsum("rhgt,rthd->rhgd", scores.softmax(-1), v)
    return result.reshape(requests, heads, dim)


def flash_prefill(bench: Bench, name: str) -> Kernel:
    prompts, tokens = bench.size(PROMPTS, 1), bench.size(TOKENS, 64)
    heads, dim = bench.size(HEADS, 2), bench.size(DIM, 16)
    dtype = torch.bfloat16 if bench.is_cuda else torch.float32
    q, k, v = (bench.normal(prompts, heads, tokens, dim, dtype=dtype) for _ in range(3))
    result = q

    def call() -> None:
        nonlocal result
        result = functional.scaled_dot_product_attention(q, k, v, is_causal=True)

    def checked() -> tuple[torch.Tensor, torch.Tensor]:
        last = slice(tokens - CHECKED_TOKENS, tokens)
        exact = [values[0, 0].double() for values in (q[:, :, last], k, v)]
        return result[0, 0, last], plain_prefill(*exact)

    on_cpu = [values[:1, :2].cpu().float() for values in (q, k, v)]
    return Kernel(
        name=name,
        unit="FLOP/s",
        how="PyTorch, scaled_dot_product_attention",
        flops=2.0 * prompts * heads * tokens * tokens * dim,
        moved_bytes=4.0 * q.nbytes,
        call=call,
        plain=lambda: plain_prefill(q, k, v),
        checked=checked,
        error_limit=2e-2,
        cpu=lambda: plain_prefill(*on_cpu),
        cpu_share=min(2, heads) / (prompts * heads),
        detail={"prompts": prompts, "tokens": tokens, "heads": heads, "dim": dim},
    )


def plain_prefill(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """softmax(q·kᵀ / √dim, later tokens masked)·v; the queries are the last tokens."""
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    behind = k.shape[-2] - q.shape[-2]
    later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(behind + 1)
    return scores.masked_fill(later, float("-inf")).softmax(-1) @ v
