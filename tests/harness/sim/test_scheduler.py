from hypothesis import given
from hypothesis import strategies as st

from harness.sim.blocks import BlockPool
from harness.sim.scheduler import Request, Scheduler

BLOCK_SIZE = 4
NUM_BLOCKS = 16  # 64 tokens: small enough that requests fight for it


def scheduler(**overrides) -> Scheduler:
    values = {
        "num_blocks": NUM_BLOCKS,
        "block_size": BLOCK_SIZE,
        "max_num_seqs": 4,
        "max_num_batched_tokens": 64,
        "prefix_caching": True,
        "chunked_prefill": True,
    }
    return Scheduler(**(values | overrides))


def request(prompt=8, max_tokens=4) -> Request:
    tokens = list(range(prompt)) if isinstance(prompt, int) else prompt
    return Request(prompt=tokens, max_tokens=max_tokens)


def run(it: Scheduler) -> int:
    """Steps until nothing is left to compute."""
    num_steps = 0
    while (step := it.schedule()).shares:
        it.complete(step)
        num_steps += 1
        assert num_steps < 10_000, "a request starves"
    return num_steps


prompts = st.lists(st.integers(0, 1), min_size=1, max_size=40)  # two tokens: prefixes collide
requests = st.builds(request, prompt=prompts, max_tokens=st.integers(1, 24))
traffic = st.lists(st.tuples(requests, st.integers(0, 5), st.booleans()), min_size=1, max_size=12)
schedulers = st.builds(
    scheduler,
    max_num_seqs=st.integers(1, 6),
    max_num_batched_tokens=st.integers(1, 80),
    prefix_caching=st.booleans(),
)


@given(it=schedulers, traffic=traffic, whole=st.booleans())
def test_the_laws_hold_for_any_traffic(it, traffic, whole):
    if whole:  # as vLLM demands of a server without chunked prefill
        it.chunked_prefill, it.max_num_batched_tokens = False, 64
    first_scheduled: list[Request] = []
    aborted = set()
    todo = list(traffic)
    wait = 0
    num_steps = 0
    while todo or it.waiting or it.running:
        if todo and wait == 0:
            new, wait, gives_up = todo.pop(0)
            it.add(new)
            if gives_up and it.running:
                aborted.add(it.running[0])
                it.abort(it.running[0])
        wait = max(0, wait - 1)
        step = it.schedule()
        check_step(it, step, first_scheduled)
        it.complete(step)
        check_blocks(it)
        num_steps += 1
        assert num_steps < 10_000, "a request starves"
    everybody = [new for new, _, _ in traffic]
    assert first_scheduled == everybody  # first come, first served
    for each in everybody:
        assert each.finished
        assert each in aborted or each.generated == each.max_tokens
        assert each.cached <= len(each.prompt) - 1
    assert it.pool.num_used == 0
    if not it.prefix_caching:
        assert it.prefix_hits == 0


def check_step(it, step, first_scheduled):
    assert sum(num_new for _, num_new in step.shares) == step.tokens <= it.max_num_batched_tokens
    assert len(step.shares) <= len(it.running) <= it.max_num_seqs
    assert all(num_new > 0 for _, num_new in step.shares)
    assert bool(step.shares) == bool(it.running)  # never idle with work to do
    for each, num_new in step.shares:
        assert each.computed + num_new <= len(each.blocks) * it.block_size
        if each not in first_scheduled:
            first_scheduled.append(each)
        if not it.chunked_prefill:
            assert each.computed + num_new == each.num_tokens


def check_blocks(it):
    held = [block for each in it.running for block in each.blocks]
    assert it.pool.num_used == len(set(held))
    assert it.pool.num_free + it.pool.num_used == it.pool.num_blocks
    assert not any(each.blocks for each in it.waiting)


def test_a_request_takes_a_prefill_step_and_one_step_for_each_further_token():
    it = scheduler()
    it.add(request(prompt=8, max_tokens=4))
    assert run(it) == 4


def test_a_long_prompt_is_computed_in_chunks_beside_decoding_requests():
    it = scheduler(max_num_batched_tokens=10)
    short, long = request(prompt=2, max_tokens=9), request(prompt=25)
    it.add(short)
    it.complete(it.schedule())
    it.add(long)
    shares = []
    for _ in range(3):
        step = it.schedule()
        shares.append([num_new for _, num_new in step.shares])
        it.complete(step)
    assert shares == [[1, 9], [1, 9], [1, 7]]


def test_a_whole_prompt_waits_for_budget_without_chunked_prefill():
    it = scheduler(chunked_prefill=False, max_num_batched_tokens=30)
    it.add(request(prompt=20))
    it.add(request(prompt=list(range(100, 120))))
    assert [num_new for _, num_new in it.schedule().shares] == [20]


def test_the_second_of_two_equal_prompts_finds_all_full_blocks_but_the_last_token():
    it = scheduler()
    first, second = request(prompt=12), request(prompt=12)
    it.add(first)
    run(it)
    it.add(second)
    run(it)
    assert (first.cached, second.cached) == (0, 8)
    assert (it.prefix_queries, it.prefix_hits) == (24, 8)


def test_forgetting_is_refused_while_blocks_are_in_use_and_ends_hits():
    it = scheduler()
    it.add(request(prompt=12))
    it.complete(it.schedule())
    assert not it.pool.forget()
    run(it)
    assert it.pool.forget()
    again = request(prompt=12)
    it.add(again)
    run(it)
    assert again.cached == 0


def test_the_last_admitted_request_is_preempted_when_blocks_run_out():
    it = scheduler(prefix_caching=False)
    first, second = request(prompt=30, max_tokens=20), request(prompt=30, max_tokens=20)
    it.add(first)
    it.add(second)
    while not it.preemptions:
        it.complete(it.schedule())
    assert it.running == [first]
    assert list(it.waiting) == [second]
    assert second.computed == 0
    run(it)
    assert first.generated == second.generated == 20


def test_least_recently_used_blocks_are_evicted_first():
    it = scheduler(num_blocks=8)
    old, young = list(range(100, 113)), list(range(200, 213))
    for prompt in (old, young, list(range(300, 313))):  # 4 blocks each: the third evicts the first
        it.add(request(prompt=prompt, max_tokens=1))
        run(it)
    again = request(prompt=young, max_tokens=1)
    gone = request(prompt=old, max_tokens=1)
    it.add(again)
    run(it)
    it.add(gone)
    run(it)
    assert (again.cached, gone.cached) == (12, 0)


def test_a_preempted_request_comes_back_before_those_that_wait():
    it = scheduler(prefix_caching=False, max_num_seqs=2)
    first, second, third = (request(prompt=30, max_tokens=20) for _ in range(3))
    for each in (first, second, third):
        it.add(each)
    while not it.preemptions:
        it.complete(it.schedule())
    assert list(it.waiting) == [second, third]


def test_free_blocks_that_are_shared_do_not_count_as_room_for_new_ones():
    pool = BlockPool(4)
    blocks = pool.take(2)
    pool.release(blocks)
    assert pool.fits(4)
    assert pool.fits(2, shared=blocks)
    assert not pool.fits(3, shared=blocks)
