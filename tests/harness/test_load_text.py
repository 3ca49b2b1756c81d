import pytest

from harness.config import compose
from harness.load_text import load_text
from harness.overrides import parse


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "closed loop, concurrency 4, 512 tokens in, 128 out"),
        (["load.output_tokens={dist:uniform,min:1,max:9}"], "512 tokens in, uniform 1 to 9 out"),
        (
            ["load.input_tokens={dist:lognormal,median:100,sigma:0.5,max:400}"],
            "lognormal around 100, 1 to 400 tokens in",
        ),
        (["load.stream=false"], "128 out, replies not streamed"),
        (
            ["load.prompts={kind: shared_prefix, groups: 8, hit_frac: 0.125}"],
            "12.5 % of each prompt shared in 8 groups",
        ),
        (["load.input_tokens=16,32"], "closed loop, concurrency 4, 128 out"),
    ],
)
def test_a_load_is_told_so_that_it_is_not_taken_for_another(words: list[str], text: str) -> None:
    config = compose(parse(["engine=sim", "model=tiny", "load.concurrency=4", *words]))
    assert text in load_text(config)
