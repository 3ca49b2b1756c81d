"""Our own kernels, in Triton. With TRITON_INTERPRET=1 they run on the CPU, to check correctness.

Each is the plain form of its pattern, without tuning by shape. What it reaches says something about
the hardware and the compiler, but is no bound on what a tuned library reaches.
"""

import triton
import triton.language as tl


@triton.jit
def read_rows(source, sums, num_values, rounds, BLOCK: tl.constexpr):
    """sums[p] = the sum of what program p reads, striding over all blocks `rounds` times.

    In each round a program reads the blocks after those of the round before, so that no value can
    stay in a register. Offsets have 32 bits, so there must be fewer than 2³¹ values.
    """
    program = tl.program_id(0)
    programs = tl.num_programs(0)
    blocks = num_values // BLOCK
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    for turn in range(rounds):
        for block in range(program, blocks, programs):
            total += tl.load(source + (block + turn) % blocks * BLOCK + tl.arange(0, BLOCK))
    tl.store(sums + program, tl.sum(total, axis=0))


@triton.jit
def rms_norm(source, weight, result, width, epsilon, BLOCK: tl.constexpr):
    """x · weight / sqrt(mean(x²) + ε), in fp32; one row per program."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    x = tl.load(source + row * width + columns, mask=inside, other=0.0).to(tl.float32)
    scale = 1.0 / tl.sqrt(tl.sum(x * x, axis=0) / width + epsilon)
    y = x * scale * tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    tl.store(result + row * width + columns, y.to(result.dtype.element_ty), mask=inside)


@triton.jit
def add_rms_norm(source, residual, weight, result, width, epsilon, BLOCK: tl.constexpr):
    """residual += source; result = RMS norm of that; one row per program."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    offsets = row * width + columns
    x = tl.load(source + offsets, mask=inside, other=0.0).to(tl.float32)
    x += tl.load(residual + offsets, mask=inside, other=0.0).to(tl.float32)
    tl.store(residual + offsets, x.to(residual.dtype.element_ty), mask=inside)
    scale = 1.0 / tl.sqrt(tl.sum(x * x, axis=0) / width + epsilon)
    y = x * scale * tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    tl.store(result + offsets, y.to(result.dtype.element_ty), mask=inside)


@triton.jit
def paged_decode(
    query,  # (requests, heads, DIM)
    keys,  # (pages, PAGE, KV_HEADS, DIM)
    values,
    pages_of,  # (requests, pages of a request)
    lengths,  # (requests,)
    result,  # (requests, heads, DIM)
    scale,
    pages_per_request,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,  # query heads per KV head
    ROWS: tl.constexpr,  # GROUP, but at least the 16 that tensor cores need
    DIM: tl.constexpr,
    PAGE: tl.constexpr,
    TILE: tl.constexpr,  # tokens at a time
):
    """Attention of one new token to all before it; one program per KV head and request."""
    request, kv_head = tl.program_id(0), tl.program_id(1)
    rows, dims = tl.arange(0, ROWS), tl.arange(0, DIM)
    is_head = rows < GROUP
    head = request * KV_HEADS * GROUP + kv_head * GROUP + rows
    at_head = head[:, None] * DIM + dims[None, :]
    q = tl.load(query + at_head, mask=is_head[:, None], other=0.0)
    length = tl.load(lengths + request)
    highest = tl.full((ROWS,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((ROWS,), dtype=tl.float32)
    weighted = tl.zeros((ROWS, DIM), dtype=tl.float32)
    for start in range(0, length, TILE):
        token = start + tl.arange(0, TILE)
        is_there = token < length
        page = tl.load(
            pages_of + request * pages_per_request + token // PAGE, mask=is_there, other=0
        )
        row = (page.to(tl.int64) * PAGE + token % PAGE) * KV_HEADS + kv_head
        k = tl.load(keys + row[None, :] * DIM + dims[:, None], mask=is_there[None, :], other=0.0)
        score = tl.where(is_there[None, :], tl.dot(q, k) * scale, float("-inf"))
        higher = tl.maximum(highest, tl.max(score, axis=1))
        share = tl.exp(score - higher[:, None])
        shrink = tl.exp(highest - higher)
        v = tl.load(values + row[:, None] * DIM + dims[None, :], mask=is_there[:, None], other=0.0)
        weighted = weighted * shrink[:, None] + tl.dot(share.to(v.dtype), v)
        total = total * shrink + tl.sum(share, axis=1)
        highest = higher
    y = weighted / total[:, None]
    tl.store(result + at_head, y.to(result.dtype.element_ty), mask=is_head[:, None])


@triton.jit
def resize_normalise(
    source,  # (images, in_height, in_width, 3), bytes
    mean,  # (3,)
    deviation,
    result,  # (images, 3, out_height, out_width)
    in_height,
    in_width,
    out_height,
    out_width,
    BLOCK: tl.constexpr,
):
    """Bilinear, half-pixel centres, no antialiasing; one row of one image per program."""
    image, y_out = tl.program_id(0).to(tl.int64), tl.program_id(1)
    x_out = tl.arange(0, BLOCK)
    inside = x_out < out_width
    y = tl.maximum((y_out + 0.5) * (in_height / out_height) - 0.5, 0.0)
    x = tl.maximum((x_out + 0.5) * (in_width / out_width) - 0.5, 0.0)
    top, left = y.to(tl.int32), x.to(tl.int32)
    bottom, right = tl.minimum(top + 1, in_height - 1), tl.minimum(left + 1, in_width - 1)
    down, across = y - top, x - left
    upper, lower = (image * in_height + top) * in_width, (image * in_height + bottom) * in_width
    for channel in tl.static_range(3):
        a = tl.load(source + (upper + left) * 3 + channel, mask=inside, other=0).to(tl.float32)
        b = tl.load(source + (upper + right) * 3 + channel, mask=inside, other=0).to(tl.float32)
        c = tl.load(source + (lower + left) * 3 + channel, mask=inside, other=0).to(tl.float32)
        d = tl.load(source + (lower + right) * 3 + channel, mask=inside, other=0).to(tl.float32)
        over, under = a + (b - a) * across, c + (d - c) * across
        value = (over + (under - over) * down) / 255.0
        value = (value - tl.load(mean + channel)) / tl.load(deviation + channel)
        at = ((image * 3 + channel) * out_height + y_out) * out_width + x_out
        tl.store(result + at, value.to(result.dtype.element_ty), mask=inside)


@triton.jit
def resample(
    times,  # (trajectories, num_points), ascending
    points,  # (trajectories, num_points, DIMS)
    wanted,  # (trajectories, num_wanted): between the first time and the last
    result,  # (trajectories, num_wanted, DIMS)
    num_points,
    num_wanted,
    STEPS: tl.constexpr,  # halvings until one interval is left: ⌈log2(num_points)⌉
    DIMS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Binary search for the interval of each wanted time, then linear interpolation in it."""
    trajectory = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = place < num_wanted
    t = tl.load(wanted + trajectory * num_wanted + place, mask=inside, other=0.0)
    low = tl.zeros((BLOCK,), dtype=tl.int32)
    high = tl.zeros((BLOCK,), dtype=tl.int32) + (num_points - 1)
    first = times + trajectory * num_points
    for _ in tl.static_range(STEPS):
        middle = (low + high) // 2
        is_later = tl.load(first + middle, mask=inside, other=0.0) > t
        is_open = high - low > 1
        raised = tl.where(is_open & (is_later == 0), middle, low)
        high = tl.where(is_open & is_later, middle, high)
        low = raised
    before = tl.load(first + low, mask=inside, other=0.0)
    after = tl.load(first + high, mask=inside, other=1.0)
    share = ((t - before) / (after - before))[:, None]
    dims = tl.arange(0, DIMS)[None, :]
    row = trajectory * num_points
    left = tl.load(points + (row + low)[:, None] * DIMS + dims, mask=inside[:, None], other=0.0)
    right = tl.load(points + (row + high)[:, None] * DIMS + dims, mask=inside[:, None], other=0.0)
    at = (trajectory * num_wanted + place)[:, None] * DIMS + dims
    tl.store(result + at, left + (right - left) * share, mask=inside[:, None])
