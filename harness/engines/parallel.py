"""How many GPUs a setting spreads a model over."""

from dataclasses import replace
from typing import TypeVar

from harness.engines.config import ServeSettings
from harness.model import Model, config_of

S = TypeVar("S", bound=ServeSettings)


def copies(engine: ServeSettings) -> int:
    """How many copies of the model there are: data parallel engines × replicas."""
    return (engine.data_parallel_size or 1) * (engine.replicas or 1)


def ranks(engine: ServeSettings) -> int:
    """How many GPUs the setting takes."""
    return (engine.tensor_parallel_size or 1) * copies(engine)


def decided(engine: S, model: Model, num_gpus: int) -> S:
    """The setting with a tensor parallel size; by default, all GPUs divided among the copies.

    The default is decided here and not by vLLM, so that plans, ids and tables know it.
    """
    if engine.tensor_parallel_size is not None:
        return engine
    size = tensor_parallel_size(model, num_gpus // copies(engine))
    return replace(engine, tensor_parallel_size=size)


def tensor_parallel_size(model: Model, num_gpus: int) -> int:
    """The largest number of GPUs, up to `num_gpus`, that the model's heads can be spread over.

    vLLM needs num_attention_heads divisible by the size. Key-value heads are divided too, or copied
    if there are fewer of them than GPUs. A model whose config cannot be read gets all GPUs.
    """
    if model.shape is not None:
        heads, kv_heads = model.shape.num_attention_heads, model.shape.num_key_value_heads
    else:
        config = config_of(model) or {}
        heads = config.get("num_attention_heads") or 0
        kv_heads = config.get("num_key_value_heads") or heads
    if not (isinstance(heads, int) and isinstance(kv_heads, int) and heads):
        return max(1, num_gpus)
    fits = (
        size
        for size in range(max(1, num_gpus), 0, -1)
        if heads % size == 0 and (kv_heads % size == 0 or size % kv_heads == 0)
    )
    return next(fits)
