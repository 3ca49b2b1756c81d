"""The best rates measured on each card: the roof over everything else that ran on it."""

from collections.abc import Iterable

from harness.hardware.probes.record import Measurement

MEMORY = ("memory.read", "memory.copy", "memory.triad")


class Ceilings:
    """The best memory and compute rates measured on each card."""

    def __init__(self, measurements: Iterable[Measurement]) -> None:
        self._best: dict[tuple[str, int], float] = {}
        for told in measurements:
            is_product = told.name.startswith("gemm.")
            if told.name not in MEMORY and not is_product:  # e.g. the L2 cache is no roof
                continue
            if told.value is not None and len(told.gpus) == 1 and not told.is_wrong:
                kind = told.name.rpartition(".")[0] if is_product else "memory"
                key = (kind, told.gpus[0])
                self._best[key] = max(self._best.get(key, 0.0), told.value)

    def memory_bytes_per_s(self, gpu: int) -> float | None:
        """The best of the card's reads, copies and triads; None without any."""
        return self._best.get(("memory", gpu))

    def flops_per_s(self, gpu: int, precision: str = "bf16") -> float | None:
        """The best of all products named by this precision; its `max` covers a model's, too."""
        return self._best.get((f"gemm.{precision}", gpu))

    def share(self, told: Measurement) -> float | None:
        """A kernel's FLOP/s / the measured roofline of its card at the kernel's intensity.

        The roofline is min(FLOP/s of the best bf16 product, intensity · memory bytes/s).
        """
        if not told.name.startswith("kernels.") or len(told.gpus) != 1:
            return None
        flops, memory = self.flops_per_s(told.gpus[0]), self.memory_bytes_per_s(told.gpus[0])
        if not (flops and memory and told.flops and told.moved_bytes and told.time_s):
            return None
        roof = min(flops, told.flops / told.moved_bytes * memory)
        return told.flops / told.time_s / roof
