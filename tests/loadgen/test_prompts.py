import hashlib
import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.config import Load
from loadgen.prompts import Prompts, check_files, file_digests
from loadgen.records import Target

DATA = Path(__file__).parent / "data"
MOONCAKE, SHAREGPT = str(DATA / "mooncake.jsonl"), str(DATA / "sharegpt.json")


def target(**overrides):
    return Target(**{"url": "http://h", "model": "m", "vocab_size": 512} | overrides)


def build(seed=1, vocab_size=512, **load):
    load = {"arrival": "closed", "concurrency": 2, "input_tokens": 20, "output_tokens": 4} | load
    return Prompts(load=Load(**load), target=target(vocab_size=vocab_size), seed=seed)


def play(path=MOONCAKE, **more):
    """The load of a trace, short enough for the one of the tests."""
    trace = {"arrival": "trace", "concurrency": None, "trace": {"path": path}}
    return trace | {"warmup_s": 0.5, "duration_s": 3.0} | more


def dataset(path=SHAREGPT, **more):
    return {"kind": "dataset", "path": path, **more}


def shared(groups, hit_frac):
    return {"kind": "shared_prefix", "groups": groups, "hit_frac": hit_frac}


def tokens(request):
    return json.loads(request.body)["prompt"]


def messages(request):
    return json.loads(request.body)["messages"]


def said(request):
    """What the messages say, but for the number in front of the first."""
    return [re.sub(r"^\d+ ", "", message["content"]) for message in messages(request)]


# Bodies


def test_a_body_asks_for_a_stream_with_usage_and_an_exact_length():
    body = json.loads(build(output_tokens=9).request(0).body)
    del body["prompt"]
    assert body == {
        "model": "m", "max_tokens": 9, "temperature": 0.0, "stream": True,
        "stream_options": {"include_usage": True}, "ignore_eos": True,
    }  # fmt: skip
    assert "ignore_eos" not in json.loads(build(ignore_eos=False).request(0).body)


def test_a_body_without_a_stream_asks_for_no_stream_options():
    body = json.loads(build(stream=False).request(0).body)
    assert body["stream"] is False
    assert "stream_options" not in body


@pytest.mark.parametrize("name", ["100%d", 'Qwen/"é"\\3'])
@pytest.mark.parametrize("endpoint", ["completions", "chat"])
def test_a_model_may_have_any_name(name, endpoint):
    load = Load(arrival="closed", concurrency=1, endpoint=endpoint, output_tokens=9)
    request = Prompts(load=load, target=target(model=name), seed=1).request(0)
    assert json.loads(request.body)["model"] == name
    assert json.loads(request.body)["max_tokens"] == 9


@given(
    seed=st.integers(0, 2**64),
    conversation=st.integers(0, 2**20),
    length=st.integers(1, 40),
    vocab_size=st.integers(18, 5000),
)
def test_prompts_are_as_long_as_asked_and_hold_only_allowed_tokens(
    seed, conversation, length, vocab_size
):
    request = build(seed, vocab_size, input_tokens=length).request(conversation)
    assert len(tokens(request)) == length == request.input_tokens
    assert all(16 <= token < vocab_size for token in tokens(request))
    assert request.index == request.conversation == conversation


def test_chat_sends_one_word_a_token():
    request = build(endpoint="chat").request(0)
    (message,) = messages(request)
    assert message["role"] == "user"
    assert re.fullmatch(r"t\d+( t\d+){19}", message["content"])
    assert request.input_tokens == 20


@pytest.mark.parametrize(
    "load",
    [
        {"input_tokens": {"dist": "uniform", "min": 5, "max": 50}},
        {"prompts": shared(3, 0.5)},
        {"prompts": dataset(), "endpoint": "chat"},
        play(),
    ],
)
def test_a_request_is_the_same_whoever_makes_it_and_in_whatever_order(load):
    prompts = build(**load)
    backwards = [prompts.request(number) for number in reversed(range(7))]
    assert backwards[::-1] == [build(**load).request(number) for number in range(7)]
    assert build(seed=2, **load).request(6).body != backwards[0].body


# Sharing


@pytest.mark.parametrize("load", [{}, {"input_tokens": {"dist": "uniform", "min": 8, "max": 50}}])
def test_no_two_prompts_share_their_first_eight_tokens(load):
    begins = {
        tuple(tokens(build(seed, **load).request(number))[:8])
        for seed in range(10)
        for number in range(100)
    }
    assert len(begins) == 10 * 100


@given(
    seed=st.integers(0, 2**32),
    groups=st.integers(1, 5),
    hit_frac=st.floats(0, 0.95),
    length=st.integers(100, 400),
)
def test_prompts_of_a_group_share_exactly_the_fraction_asked(seed, groups, hit_frac, length):
    prompts = build(seed, input_tokens=length, prompts=shared(groups, hit_frac))
    made = [tokens(prompts.request(number)) for number in range(20)]
    hit = round(hit_frac * length)
    assert len({tuple(prompt[:hit]) for prompt in made}) <= (groups if hit else 1)
    assert {len(prompt) for prompt in made} == {length}
    if length - hit >= 4:  # enough for the number that makes a prompt its own
        assert len({tuple(prompt[hit : hit + 4]) for prompt in made}) == 20
        assert len({prompt[hit] for prompt in made}) == 20


def test_groups_are_drawn_evenly_and_have_nothing_in_common():
    prompts = build(input_tokens=100, prompts=shared(4, 0.5))
    prefixes = [tuple(tokens(prompts.request(number))[:50]) for number in range(1000)]
    counts = {prefix: prefixes.count(prefix) for prefix in prefixes}
    assert len({prefix[0] for prefix in counts}) == 4
    assert all(200 < count < 300 for count in counts.values())
    other = build(seed=2, input_tokens=100, prompts=shared(4, 0.5))
    others = {tuple(tokens(other.request(number))[:4]) for number in range(100)}
    assert not others & {prefix[:4] for prefix in counts}


def test_longer_prompts_of_a_group_share_more():
    lengths = {"dist": "uniform", "min": 50, "max": 500}
    prompts = build(input_tokens=lengths, prompts=shared(1, 0.5))
    made = sorted((tokens(prompts.request(number)) for number in range(10)), key=len)
    for shorter, longer in pairwise(made):
        hit = round(0.5 * len(shorter))
        assert shorter[:hit] == longer[:hit]


# Traces


def test_a_trace_says_how_long_its_requests_are():
    prompts = build(**play())
    made = [prompts.request(number) for number in range(4)]
    assert [len(tokens(request)) for request in made] == [1100, 600, 700, 1300]
    assert [request.input_tokens for request in made] == [1100, 600, 700, 1300]
    assert [json.loads(r.body)["max_tokens"] for r in made] == [52, 26, 3, 11]


def test_prompts_of_a_trace_share_the_blocks_that_it_says_and_no_more():
    one, two, three, four = (tokens(build(**play()).request(number)) for number in range(4))
    # blocks 0 1 2, then 0 3, then 5 and 188 tokens of its own, then 0 1 4
    assert one[:512] == two[:512] == four[:512]
    assert one[:1024] == four[:1024]
    begins = [one[:8], one[512:520], one[1024:1032], two[512:520], three[:8], three[512:520],
              four[1024:1032]]  # fmt: skip
    assert len(set(map(tuple, begins))) == len(begins)
    other = tokens(build(seed=2, **play()).request(0))
    assert not any(a == b for a, b in zip(one[:4], other[:4], strict=True))


def test_requests_made_ahead_of_a_traces_end_do_not_fail():
    assert len(tokens(build(**play()).request(4))) == 1100


# Text


def test_completions_send_the_first_user_message_of_each_entry_in_a_drawn_order():
    prompts = build(prompts=dataset(unique=False))
    orders = set()
    for around in range(20):
        both = tuple(tokens(prompts.request(2 * around + number)) for number in (0, 1))
        assert set(both) == {"Where is Cádiz?", "Say it again."}
        orders.add(both)
    assert len(orders) == 2
    assert prompts.request(0).input_tokens is None


def test_chat_sends_all_up_to_the_last_answer():
    prompts = build(endpoint="chat", prompts=dataset())
    made = {tuple(said(prompts.request(number))) for number in (0, 1)}
    assert made == {
        ("Where is Cádiz?", "In Spain.", "How old is it?"),
        ("Say it again.",),
    }


@pytest.mark.parametrize("endpoint", ["completions", "chat"])
@pytest.mark.parametrize("name", ["sharegpt.json", "messages.jsonl"])
def test_a_number_in_front_makes_every_text_its_own(endpoint, name):
    load = {"endpoint": endpoint, "prompts": dataset(str(DATA / name))}
    bodies = [build(seed, **load).request(n).body for seed in range(20) for n in range(20)]
    numbers = {re.search(rb'(?:"prompt":"|"content":")(\d+) ', body)[1] for body in bodies}
    assert len(numbers) == 20 * 20


# Conversations


def test_a_turn_holds_all_that_was_said_and_a_new_message():
    prompts = build(endpoint="chat", conversation={"turns": 3}, input_tokens=7)
    first = prompts.request(5)
    second = prompts.next_turn(first, 'He said: "é"\n')
    third = prompts.next_turn(second, "Yes.")
    assert prompts.next_turn(third, "No.") is None
    assert [message["role"] for message in messages(third)] == [
        "user", "assistant", "user", "assistant", "user",
    ]  # fmt: skip
    assert messages(third)[:3] == messages(second)
    assert messages(second)[:1] == messages(first)
    assert messages(second)[1]["content"] == 'He said: "é"\n'
    assert [(r.index, r.conversation, r.turn) for r in (first, second, third)] == [
        (15, 5, 1), (16, 5, 2), (17, 5, 3),
    ]  # fmt: skip
    assert [r.input_tokens for r in (first, second, third)] == [7, None, None]
    users = {message["content"] for message in messages(third)[::2]}
    assert len(users) == 3
    assert all(len(words.split()) == 7 for words in users)


def test_the_reply_changes_nothing_but_what_it_says():
    prompts = build(endpoint="chat", conversation={"turns": 2})
    one, two = (prompts.next_turn(prompts.request(0), reply) for reply in ("a", "b"))
    assert messages(one)[2] == messages(two)[2]
    assert one.output_tokens == two.output_tokens


def test_only_the_beginning_of_a_conversation_is_shared():
    load = {"endpoint": "chat", "conversation": {"turns": 2}, "prompts": shared(1, 0.5)}
    prompts = build(**load)
    turns = [prompts.next_turn(prompts.request(number), "") for number in range(5)]
    openings = {tuple(messages(turn)[0]["content"].split()[:10]) for turn in turns}
    seconds = {messages(turn)[2]["content"].split()[0] for turn in turns}
    assert (len(openings), len(seconds)) == (1, 5)


def test_a_conversation_of_people_goes_on_with_the_servers_replies():
    prompts = build(endpoint="chat", prompts=dataset(), conversation={"turns": 9})
    lengths = set()
    for number in range(2):
        request, turns = prompts.request(number), []
        while request is not None:
            turns.append(said(request))
            request = prompts.next_turn(request, "Here.")
        lengths.add(len(turns))
        if len(turns) == 2:
            assert turns == [
                ["Where is Cádiz?"], ["Where is Cádiz?", "Here.", "How old is it?"],
            ]  # fmt: skip
    assert lengths == {1, 2}


def test_a_conversation_of_people_has_at_most_the_turns_asked():
    prompts = build(endpoint="chat", prompts=dataset(), conversation={"turns": 1})
    assert all(prompts.next_turn(prompts.request(number), "") is None for number in range(2))
    assert {len(messages(prompts.request(number))) for number in range(2)} == {1}


# Files


def lengths_load(path):
    return Load(arrival="closed", concurrency=1, input_tokens={"dist": "empirical", "path": path})


def dataset_load(path):
    return Load(arrival="closed", concurrency=1, prompts=dataset(path))


def trace_load(path, **more):
    return Load(**play(path, **more))


def test_files_that_are_well_formed_are_accepted():
    check_files(lengths_load(str(DATA / "lengths.txt")))
    check_files(dataset_load(SHAREGPT))
    check_files(trace_load(MOONCAKE))
    check_files(Load(arrival="closed", concurrency=1))


@pytest.mark.parametrize(
    ("load", "name"),
    [
        (lengths_load, "input_tokens.path"),
        (dataset_load, "prompts.path"),
        (trace_load, "trace.path"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_its_setting(tmp_path, load, name):
    with pytest.raises(ValueError, match=rf"^{name}=.*gone: No such file"):
        check_files(load(str(tmp_path / "gone")))
    with pytest.raises(ValueError, match=rf"^{name}=.*: Is a directory"):
        check_files(load(str(tmp_path)))
    (tmp_path / "packed").write_bytes(b"\x1f\x8b\x08\xff")
    with pytest.raises(ValueError, match=rf"^{name}=.*packed: not text in UTF-8"):
        check_files(load(str(tmp_path / "packed")))
    (tmp_path / "wrong").write_text("?\n1\n")
    with pytest.raises(ValueError, match=rf"^{name}: .*wrong:1: .*expected"):
        check_files(load(str(tmp_path / "wrong")))


def test_a_trace_that_ends_before_the_window_is_refused():
    with pytest.raises(ValueError, match=r"lasts 3\.5 s at speed=1, less than .* = 3\.6 s"):
        check_files(trace_load(MOONCAKE, duration_s=3.1))
    with pytest.raises(ValueError, match=r"lasts 1\.75 s at speed=2"):
        check_files(trace_load(MOONCAKE, trace={"path": MOONCAKE, "speed": 2.0}))


def test_the_digests_are_those_of_the_files():
    load = dataset_load(SHAREGPT)
    assert file_digests(load) == {
        "prompts.path": hashlib.sha256(Path(SHAREGPT).read_bytes()).hexdigest()
    }
    assert file_digests(Load(arrival="closed", concurrency=1)) == {}
    assert set(file_digests(trace_load(MOONCAKE))) == {"trace.path"}


@pytest.mark.parametrize("wrong", [{"vocab_size": 17}, {"first_token_id": -1}, {"url": "h:80"}])
def test_a_target_without_two_tokens_or_a_scheme_is_refused(wrong):
    with pytest.raises(ValueError, match=r"first_token_id|url"):
        target(**wrong)
