from typing import Any

import pytest

from harness.sweep import Sweep

NOTHING: Any = None


def command(*words: str) -> str:
    return Sweep(config=NOTHING, plan=NOTHING, environment=NOTHING, words=words).command


@pytest.mark.parametrize(
    "word",
    [
        "engine.env.HF_TOKEN=hunter2",
        "+engine.env.HF_TOKEN=hunter2",
        "engine.env={HF_TOKEN: hunter2}",
        "+engine.env={HF_TOKEN: hunter2}",
        "++engine.env={VLLM_USE_V1: 1, HF_TOKEN: hunter2}",
        "tune.space.env.HF_TOKEN=[hunter2, hunter3]",
        "tune.space={env.HF_TOKEN: [hunter2, hunter3]}",
    ],
)
def test_the_command_holds_no_secret_however_it_was_given(word: str) -> None:
    told = command("sweep=single", word)
    assert "hunter" not in told
    assert told.endswith(f"{word.partition('=')[0]}=***'")


@pytest.mark.parametrize(
    "word",
    ["engine.env.OMP_NUM_THREADS=4", "engine.api_key_env=MY_KEY", "model=/env/TOKENS"],
)
def test_what_is_no_secret_stays_in_the_command(word: str) -> None:
    assert command(word) == f"python -m harness {word}"
