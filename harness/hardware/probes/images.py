"""Images for a vision encoder: resize and normalise in one pass, from bytes to half precision.

Bilinear with half-pixel centres and without antialiasing, like F.interpolate(align_corners=False).
From 448 to 336 pixels every input pixel is needed, so the least traffic is 3 bytes per pixel in and
6 out. With some 14 FLOPs per output value, it is memory-bound. Plain PyTorch converts, resizes,
subtracts and divides, and passes through memory each time.
"""

import torch
from torch.nn import functional

from .bench import Bench
from .kernel import Kernel
from .norms import power_of_two

IMAGES, FROM, TO = 512, 448, 336
MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # CLIP
FLOPS_PER_VALUE = 14.0  # six of the two lerps across, three down, scale, shift, and the weights
CPU_IMAGES = 8


def resize_normalise(bench: Bench, name: str) -> Kernel:
    from .triton_kernels import resize_normalise as kernel

    images, size, to = bench.size(IMAGES, 2), bench.size(FROM, 24), bench.size(TO, 18)
    shape = (images, size, size, 3)
    source = torch.randint(
        256, shape, generator=bench.random, device=bench.device, dtype=torch.uint8
    )
    mean, deviation = (torch.tensor(values, device=bench.device) for values in (MEAN, DEVIATION))
    result = torch.full((images, 3, to, to), float("nan"), device=bench.device, dtype=torch.half)
    on_cpu = source[:CPU_IMAGES].cpu()
    block = power_of_two(to)
    return Kernel(
        name=name,
        unit="B/s",
        how="Triton",
        flops=FLOPS_PER_VALUE * result.numel(),
        moved_bytes=float(source.nbytes + result.nbytes),
        call=lambda: kernel[(images, to)](
            source, mean, deviation, result, size, size, to, to, BLOCK=block, num_warps=4
        ),
        plain=lambda: plain(source, to, torch.float32).half(),
        checked=lambda: (result[:2], plain(source[:2], to, torch.float64)),
        error_limit=2e-3,
        cpu=lambda: plain(on_cpu, to, torch.float32).half(),
        cpu_share=len(on_cpu) / images,
        detail={"images": images, "from_pixels": size, "to_pixels": to},
    )


def plain(source: torch.Tensor, to: int, dtype: torch.dtype) -> torch.Tensor:
    values = source.permute(0, 3, 1, 2).to(dtype) / 255
    resized = functional.interpolate(values, (to, to), mode="bilinear", align_corners=False)
    mean, deviation = (
        torch.tensor(told, device=source.device, dtype=dtype).view(3, 1, 1)
        for told in (MEAN, DEVIATION)
    )
    return (resized - mean) / deviation
