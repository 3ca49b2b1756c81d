"""The options that the harness gives to a family of probes."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A decoder's sizes, under Hugging Face's names."""

    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`gpus` has NVML's indices of the cards that CUDA shows to this process, in CUDA's order."""

    gpus: tuple[int, ...] = ()
    seconds: float = 60.0  # of the steady state
    rehearsal: bool = False  # tiny sizes on the CPU: runs the code, measures nothing
    compare_cpu: bool = False  # time the plain forms on the CPU, too
    model: Shape | None = None
    tensor_parallel_sizes: tuple[int, ...] = field(default=(1,))

    def __post_init__(self) -> None:
        object.__setattr__(self, "gpus", tuple(self.gpus))
        object.__setattr__(self, "tensor_parallel_sizes", tuple(self.tensor_parallel_sizes))
        if isinstance(self.model, dict):
            object.__setattr__(self, "model", Shape(**self.model))
