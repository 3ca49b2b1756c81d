import json
from pathlib import Path

import pytest

from loadgen import dataset

DATA = Path(__file__).parent / "data"


def shape(dialogue):
    """u, a and s: who speaks, in order."""
    return "".join(message["role"][0] for message in dialogue)


@pytest.fixture
def read(tmp_path):
    """Read a dataset that is this text."""

    def read(text):
        path = tmp_path / "dataset"
        path.write_text(text)
        return dataset.read(str(path))

    return read


def test_sharegpt_goes_from_the_first_user_message_to_the_last():
    dialogues = dataset.read(str(DATA / "sharegpt.json"))
    assert [shape(dialogue) for dialogue in dialogues] == ["uau", "u"]
    assert dialogues[0][0] == {"role": "user", "content": "Where is Cádiz?"}
    assert dialogues[1][0] == {"role": "user", "content": "Say it again."}


def test_openai_messages_keep_the_system_and_the_texts():
    dialogues = dataset.read(str(DATA / "messages.jsonl"))
    assert [shape(dialogue) for dialogue in dialogues] == ["su", "uau"]
    assert dialogues[0][1] == {"role": "user", "content": "What is this?\nAnd that?"}
    assert [message["content"] for message in dialogues[1]] == [
        "Weather?", "Sunny.", "And tomorrow?",
    ]  # fmt: skip


def test_each_form_may_be_a_list_or_lines(read):
    entry = {"messages": [{"role": "user", "content": "Hello"}]}
    same = {"conversations": [{"from": "human", "value": "Hello"}]}
    assert read(json.dumps([entry])) == read(json.dumps(same)) == (tuple(entry["messages"]),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"dataset: no user message in it, expected an object with `conversations`"),
        ("[]", r"dataset: no user message in it"),
        ('[{"conversations": [{"from": "gpt", "value": "Hm"}]}]', r"no user message in it"),
        ('[\n{"conversations": ]', r"dataset:2: not JSON .*, expected an object"),
        ('{"messages": []}\n{', r"dataset:2: not JSON .*, expected an object"),
        ('{"messages": []}\n{"text": 1}', r'dataset:2: {"text": 1}, expected an object'),
        ('[{"messages": []}, 7]', r"dataset: entry 2: 7, expected an object"),
        ('{"messages": "Hello"}', r"dataset:1: .*, expected an object"),
        ('{"messages": [{"content": "Hello"}]}', r"dataset:1: .* has no role, expected"),
        ('{"messages": [{"role": "user", "content": 7}]}', r"dataset:1: 7, expected a text"),
        ('{"messages": [{"role": "user", "content": ["a"]}]}', r'dataset:1: \["a"\], expected'),
    ],
)
def test_a_malformed_dataset_is_refused_with_its_place(read, text, message):
    with pytest.raises(ValueError, match=message):
        read(text)
