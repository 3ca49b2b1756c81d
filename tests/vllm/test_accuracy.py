"""A model that is trained here, served by a real vLLM in several ways, and what each of them costs.

Needs HARNESS_VLLM_PYTHON, which trains it too.
"""

import json
import os
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from harness.checks.accuracy import delta
from harness.checks.config import AccuracyCheck
from harness.checks.interview import NoAnswerError, ask, prompts_of
from harness.engines import vllm
from harness.engines.config import VllmEngine
from harness.model import Model
from harness.scripts import train_model

PYTHON = os.environ.get("HARNESS_VLLM_PYTHON", "")
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.long,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(not PYTHON, reason="HARNESS_VLLM_PYTHON names no interpreter with vLLM"),
]
CHECK = AccuracyCheck(reference=["float32"], prompts=24, continuation_tokens=24)
# All layers' matrices in so many bits, a scale for each row.
ROUND = """
import sys
from safetensors.torch import load_file, save_file
path, bits = sys.argv[1], int(sys.argv[2])
weights = load_file(path)
for name, weight in weights.items():
    if weight.ndim == 2 and ".layers." in name:
        scale = weight.float().abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
        weights[name] = ((weight.float() / scale).round() * scale).to(weight.dtype)
save_file(weights, path, metadata={"format": "pt"})
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "trained"
    command = [PYTHON, train_model.__file__, "--out", folder, "--size", "tiny", "--steps", "300"]
    # one thread: two that wait for each other by spinning are far slower on a busy machine
    subprocess.run(command, check=True, timeout=2000, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return folder


@pytest.fixture(scope="module")
def serve(tmp_path_factory):
    """Serves a folder one server after the other, asks each, and gives its passes."""
    root = tmp_path_factory.mktemp("launches")

    def serve(folder: Path, dtype: str, check: AccuracyCheck = CHECK, **extra: int):
        model = Model(name="m", path=str(folder))
        engine = VllmEngine(
            python=PYTHON, enforce_eager=True, dtype=dtype, max_model_len=1024, extra=extra
        )
        server = vllm.start(engine, model, root / str(len(list(root.iterdir()))), root)
        try:
            return ask(server.url, server.model, prompts_of(check, str(folder)), check)
        finally:
            server.stop()

    return serve


@pytest.fixture(scope="module")
def reference(serve, trained):
    return serve(trained, "float32")


def rounded(trained: Path, bits: int) -> Path:
    folder = trained.with_name(f"{bits}-bits")
    shutil.copytree(trained, folder)
    file = folder / "model.safetensors"
    subprocess.run([PYTHON, "-c", ROUND, file, str(bits)], check=True)
    return folder


def test_training_learned_more_than_how_often_tokens_occur(trained):
    record = json.loads((trained / "training.json").read_text())
    assert record["held_out_perplexity"] < 0.5 * record["held_out_unigram_perplexity"]


def test_the_server_computes_the_model_that_was_trained(trained, reference):
    """Perplexity through the whole of vLLM is that of the same weights in plain PyTorch."""
    program = (
        "import json, math, sys, torch; from transformers import AutoModelForCausalLM\n"
        "model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)\n"
        "prompts = json.load(open(sys.argv[1] + '/heldout.json'))['prompts'][:int(sys.argv[2])]\n"
        "batch = torch.tensor(prompts)\n"
        "print(math.exp(model(input_ids=batch, labels=batch).loss.item()))"
    )
    command = [PYTHON, "-c", program, str(trained), str(CHECK.prompts)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    served = delta(reference[0], reference[0], seed=0).perplexity
    assert served == pytest.approx(float(done.stdout), rel=1e-4)


def test_vllm_reads_the_tokenizer_as_it_was_trained(trained):
    """Text of the held-out prompts encodes back to their tokens, by the class that vLLM takes."""
    program = (
        "import json, sys; from transformers import AutoTokenizer\n"
        "tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])\n"
        "prompts = json.load(open(sys.argv[1] + '/heldout.json'))['prompts']\n"
        "texts = [tokenizer.decode(prompt) for prompt in prompts]\n"
        "again = [tokenizer.encode(text, add_special_tokens=False) for text in texts]\n"
        "same = sum(a[8:-8] == p[8:-8] for a, p in zip(again, prompts))\n"
        "print(type(tokenizer).__name__, same, len(prompts))"
    )
    done = subprocess.run(
        [PYTHON, "-c", program, str(trained)], capture_output=True, text=True, check=True
    )
    kind, same, prompts = done.stdout.split()
    assert kind.startswith("Qwen2Tokenizer")
    assert int(same) > 0.8 * int(prompts)  # a window may begin or end inside a word


def test_the_coarser_the_weights_the_further_from_the_reference(serve, trained, reference):
    floor = delta(*reference, seed=0)
    found = [
        delta(reference[0], serve(folder, dtype)[0], seed=0)
        for folder, dtype in (
            (trained, "bfloat16"),
            (rounded(trained, 3), "float32"),
            (rounded(trained, 2), "float32"),
        )
    ]
    assert floor.kl_mean_nats < 1e-6 < found[0].kl_low_nats
    for better, worse in pairwise(found):
        assert better.kl_high_nats < worse.kl_low_nats
        assert better.top1_agreement_frac > worse.top1_agreement_frac
        assert better.common_prefix_tokens >= worse.common_prefix_tokens
        assert better.exact_match_frac >= worse.exact_match_frac
    assert floor.top1_agreement_frac > 0.999
    assert abs(found[0].perplexity_delta) < 0.01 * found[0].perplexity
    assert found[2].exact_match_frac < floor.exact_match_frac


def test_more_logprobs_than_the_server_tells_is_told_in_its_words(serve, trained):
    with pytest.raises(NoAnswerError, match=r"HTTP 400: .*20.*5"):
        serve(trained, "float32", max_logprobs=5)
