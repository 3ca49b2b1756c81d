"""Resamples trajectories: for each wanted time, finds its interval and interpolates linearly.

Binary search over n times takes ⌈log2 n⌉ dependent loads, which hit a cache after the first few;
the final reads are scattered. So latency and gathers bound it, and its share of the memory
bandwidth (each time, point and result once) says how well they are hidden. The plain form is
searchsorted and gathers.
"""

import torch

from .bench import Bench
from .kernel import Kernel

TRAJECTORIES, POINTS, WANTED, DIMS = 8192, 1024, 1024, 8
BLOCK = 128
CPU_TRAJECTORIES = 64


def resample(bench: Bench, name: str) -> Kernel:
    from .triton_kernels import resample as kernel

    trajectories = bench.size(TRAJECTORIES, 3)
    num_points, num_wanted = bench.size(POINTS, 33), bench.size(WANTED, 40)
    gaps = 0.5 + torch.rand(
        trajectories, num_points, generator=bench.random, device=bench.device
    )  # uneven
    times = gaps.cumsum(1).contiguous()
    share = torch.rand(trajectories, num_wanted, generator=bench.random, device=bench.device)
    first, last = times[:, :1], times[:, -1:]
    wanted = (first + share.sort(1).values * (last - first)).clamp(first, last).contiguous()
    points = bench.normal(trajectories, num_points, DIMS, dtype=torch.float32)
    result = torch.full((trajectories, num_wanted, DIMS), float("nan"), device=bench.device)
    grid = (trajectories, -(-num_wanted // BLOCK))
    steps = (num_points - 1).bit_length()
    on_cpu = [values[:CPU_TRAJECTORIES].cpu() for values in (times, points, wanted)]
    some = slice(0, 16)
    return Kernel(
        name=name,
        unit="B/s",
        how="Triton",
        flops=3.0 * result.numel(),
        moved_bytes=float(times.nbytes + points.nbytes + wanted.nbytes + result.nbytes),
        call=lambda: kernel[grid](
            times,
            points,
            wanted,
            result,
            num_points,
            num_wanted,
            STEPS=steps,
            DIMS=DIMS,
            BLOCK=BLOCK,
            num_warps=4,
        ),
        plain=lambda: plain(times, points, wanted),
        checked=lambda: (
            result[some],
            plain(times[some].double(), points[some].double(), wanted[some].double()),
        ),
        error_limit=1e-3,
        cpu=lambda: plain(*on_cpu),
        cpu_share=len(on_cpu[0]) / trajectories,
        detail={"trajectories": trajectories, "points": num_points, "wanted": num_wanted},
    )


def plain(times: torch.Tensor, points: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    after = torch.searchsorted(times, wanted, right=True).clamp(1, times.shape[1] - 1)
    before = after - 1
    t0, t1 = times.gather(1, before), times.gather(1, after)
    share = ((wanted - t0) / (t1 - t0)).unsqueeze(-1)
    wide = (-1, -1, points.shape[2])
    p0, p1 = (points.gather(1, index.unsqueeze(-1).expand(*wide)) for index in (before, after))
    return p0 + (p1 - p0) * share
