"""Answers of servers whose whole distributions are known."""

import numpy as np

from harness.checks.answers import Answer

TOP = 5


def log_softmax(logits):
    logits = logits - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def answer(prompt, logits, token_ids, continued=(), top=TOP):
    """What a server tells that computes these logits, [positions, vocabulary]."""
    logprobs = log_softmax(logits).astype(np.float32)
    order = np.argsort(-logprobs, axis=1, kind="stable")[:, :top].astype(np.int32)
    return Answer(
        prompt=prompt,
        token_ids=np.asarray(token_ids, np.int32),
        logprobs=np.take_along_axis(logprobs, np.asarray(token_ids)[:, None], axis=1)[:, 0],
        top_ids=order,
        top_logprobs=np.take_along_axis(logprobs, order, axis=1),
        continued=np.asarray(continued, np.int32),
    )


class Server:
    """Gives every prompt logits of its own, and a share of noise on top of them."""

    def __init__(self, seed=0, prompts=12, positions=20, vocabulary=40, continued=8):
        random = np.random.default_rng(seed)
        self.logits = 2.0 * random.standard_normal((prompts, positions, vocabulary))
        self.noise = random.standard_normal(self.logits.shape)
        self.token_ids = random.integers(vocabulary, size=(prompts, positions))
        self.first_wrong = random.permutation(continued * prompts)[:prompts]  # 0 … 8 · prompts
        self.continued = continued

    def answers(self, noise=0.0):
        """`noise` scales what is added to the logits; continuations part at the earlier the more
        there is of it."""
        return tuple(
            answer(
                prompt=1000 + prompt,
                logits=logits + noise * self.noise[prompt],
                token_ids=self.token_ids[prompt],
                continued=np.arange(self.continued) * noise * 100 // (self.first_wrong[prompt] + 1),
            )
            for prompt, logits in enumerate(self.logits)
        )
