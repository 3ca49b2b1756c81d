"""Serving kernels: one for each pattern found in serving and its data path."""

from collections.abc import Callable

from . import attention, images, launches, norms, trajectories
from .bench import Bench
from .kernel import Kernel, measured
from .options import Options
from .record import emit, reported

KERNELS: dict[str, tuple[str, Callable[[Bench, str], Kernel]]] = {
    "kernels.layer_norm": ("B/s", norms.layer_norm),
    "kernels.rms_norm": ("B/s", norms.rms_norm),
    "kernels.paged_decode": ("B/s", attention.paged_decode),
    "kernels.flash_prefill": ("FLOP/s", attention.flash_prefill),
    "kernels.resize_normalise": ("B/s", images.resize_normalise),
    "kernels.resample": ("B/s", trajectories.resample),
}


def run(options: Options) -> None:
    bench = Bench(options)
    for name, (unit, make) in KERNELS.items():
        with reported(name, bench.gpus, unit):
            emit(measured(bench, make(bench, name)))
    launches.run(bench)
