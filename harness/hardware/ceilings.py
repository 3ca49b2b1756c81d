"""What each card was measured to do at most: the roof over everything else that ran on it."""

from collections.abc import Iterable

from harness.hardware.probes.record import Measurement

MEMORY = ("memory.read", "memory.copy", "memory.triad")


class Ceilings:
    """What each card was measured to do at most."""

    def __init__(self, measurements: Iterable[Measurement]) -> None:
        self._best: dict[tuple[str, int], float] = {}
        for told in measurements:
            is_product = told.name.startswith("gemm.")
            if told.name not in MEMORY and not is_product:  # the L2 cache is no roof, say
                continue
            if told.value is not None and len(told.gpus) == 1 and not told.is_wrong:
                kind = told.name.rpartition(".")[0] if is_product else "memory"
                key = (kind, told.gpus[0])
                self._best[key] = max(self._best.get(key, 0.0), told.value)

    def memory_bytes_per_s(self, gpu: int) -> float | None:
        """The best of its reads, copies and triads; None where there was none."""
        return self._best.get(("memory", gpu))

    def flops_per_s(self, gpu: int, precision: str = "bf16") -> float | None:
        """The best of all products of this precision that are not a model's."""
        return self._best.get((f"gemm.{precision}", gpu))

    def share(self, told: Measurement) -> float | None:
        """A kernel's FLOP/s over what the roofline of its card gives at its intensity.

        min(FLOP/s of the best bf16 product, intensity · bytes/s of the memory): both measured.
        """
        if not told.name.startswith("kernels.") or len(told.gpus) != 1:
            return None
        flops, memory = self.flops_per_s(told.gpus[0]), self.memory_bytes_per_s(told.gpus[0])
        if not (flops and memory and told.flops and told.moved_bytes and told.time_s):
            return None
        roof = min(flops, told.flops / told.moved_bytes * memory)
        return told.flops / told.time_s / roof
