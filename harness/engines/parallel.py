"""How many GPUs share each layer of a model."""

from harness.model import Model, config_of


def tensor_parallel_size(model: Model, num_gpus: int) -> int:
    """The most GPUs, up to `num_gpus`, over which the model's heads can be spread evenly.

    vLLM wants num_attention_heads divisible by the size; key-value heads are divided, or copied
    where there are fewer of them than GPUs. A model whose numbers cannot be read gets all GPUs.
    """
    if model.shape is not None:
        heads, kv_heads = model.shape.num_attention_heads, model.shape.num_key_value_heads
    else:
        config = config_of(model) or {}
        heads = config.get("num_attention_heads") or 0
        kv_heads = config.get("num_key_value_heads") or heads
    if not heads:
        return max(1, num_gpus)
    fits = (
        size
        for size in range(max(1, num_gpus), 0, -1)
        if heads % size == 0 and (kv_heads % size == 0 or size % kv_heads == 0)
    )
    return next(fits)
