"""What one way to serve a model costs in accuracy against another, on the same prompts. Pure.

**KL divergence.** A server reports only the likeliest tokens. So of the two distributions at a
position, P (reference) and Q, only the tokens C that both report are known, including the prompt's
own. All others go into one bucket:

    KL = Σ over C of P(t) ln(P(t) / Q(t))  +  P(rest) ln(P(rest) / Q(rest)),   P(rest) = 1 − Σ P(t)

A token that only one of them reports has no known probability in the other, and goes into the rest.
Merging outcomes cannot raise a divergence (data-processing inequality), so this is a lower bound of
the divergence over the whole vocabulary. `kl_seen_frac`, the reference's probability that lies in
C, says how much it can hide. Both rests are increased by 1e-6, more than the rounding error of the
server's float32 logprobs; that, too, can only lower the divergence.

**Intervals** are 95 % percentile bootstraps over prompts, because positions within a prompt are not
independent. If all prompts agree, the interval is a point; with n prompts, the truth may then still
be off by about 3/n (rule of three).

**The floor.** A server need not repeat itself: the batch that a prompt is in changes the order of
summation. `delta` between two passes of the reference is the smallest meaningful difference.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.checks.answers import Answer, Answers

Array = npt.NDArray[np.float64]

ROUNDING = 1e-6
LEAST_LOGPROB = -80.0  # so that every measure is finite: vLLM writes -9999 for minus infinity
RESAMPLES = 2000
INTERVAL = (2.5, 97.5)  # percentiles


class UnpairedError(ValueError):
    """Two sets of answers cannot be compared prompt by prompt; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Answers compared with a reference's. The names are those of the table's columns.

    kl_mean_nats          mean over positions of the KL divergence, see above
    kl_seen_frac          mean over positions of the reference's probability on tokens in C
    top1_agreement_frac   share of positions where both have the same likeliest token
    perplexity            exp(−mean logprob of the prompts' own tokens)
    perplexity_delta      perplexity minus the reference's
    exact_match_frac      share of prompts whose greedy continuations are identical
    common_prefix_tokens  tokens until the continuations differ, mean over prompts
    """

    accuracy_prompts: int
    kl_mean_nats: float
    kl_low_nats: float
    kl_high_nats: float
    kl_seen_frac: float
    top1_agreement_frac: float
    top1_agreement_low_frac: float
    top1_agreement_high_frac: float
    perplexity: float
    perplexity_delta: float
    perplexity_delta_low: float
    perplexity_delta_high: float
    exact_match_frac: float
    exact_match_low_frac: float
    exact_match_high_frac: float
    common_prefix_tokens: float
    common_prefix_low_tokens: float
    common_prefix_high_tokens: float


def delta(reference: Answers, answers: Answers, seed: int) -> Accuracy:
    """Compare `answers` with `reference`, paired by prompt. Raises UnpairedError."""
    sums = np.array([_sums(*pair) for pair in _pairs(reference, answers)])
    random = np.random.default_rng(seed)
    drawn = random.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=RESAMPLES)
    found = _measures(sums.sum(axis=0))
    # not `drawn @ sums`: BLAS may sum two equal columns in different orders
    resampled = _measures(np.einsum("rp,pm->rm", drawn, sums))
    low = {name: float(np.percentile(values, INTERVAL[0])) for name, values in resampled.items()}
    high = {name: float(np.percentile(values, INTERVAL[1])) for name, values in resampled.items()}
    return Accuracy(
        accuracy_prompts=len(sums),
        kl_mean_nats=float(found["kl"]),
        kl_low_nats=low["kl"],
        kl_high_nats=high["kl"],
        kl_seen_frac=float(found["seen"]),
        top1_agreement_frac=float(found["agreed"]),
        top1_agreement_low_frac=low["agreed"],
        top1_agreement_high_frac=high["agreed"],
        perplexity=float(found["perplexity"]),
        perplexity_delta=float(found["perplexity_delta"]),
        perplexity_delta_low=low["perplexity_delta"],
        perplexity_delta_high=high["perplexity_delta"],
        exact_match_frac=float(found["exact"]),
        exact_match_low_frac=low["exact"],
        exact_match_high_frac=high["exact"],
        common_prefix_tokens=float(found["prefix"]),
        common_prefix_low_tokens=low["prefix"],
        common_prefix_high_tokens=high["prefix"],
    )


def kl_nats(reference: Answer, answer: Answer) -> tuple[Array, Array]:
    """For each position, the divergence (a lower bound), and the reference's probability in C.

    Both have shape [positions].
    """
    ids_p, p = _told(reference)
    ids_q, q = _told(answer)
    alike = (ids_p[:, :, None] == ids_q[:, None, :]) & (p[:, :, None] > 0) & (q[:, None, :] > 0)
    q = np.take_along_axis(q, alike.argmax(axis=2), axis=1)
    both = alike.any(axis=2)
    p, q = np.where(both, p, 0.0), np.where(both, q, 0.0)
    seen = p.sum(axis=1)
    p, q = _with_rest(p), _with_rest(q)
    terms = p * np.log(np.divide(p, q, out=np.ones_like(p), where=p > 0))
    return np.maximum(terms.sum(axis=1), 0.0), seen  # only rounding can make it negative


def _told(answer: Answer) -> tuple[npt.NDArray[np.int32], Array]:
    """Token ids and probabilities of the likeliest tokens and the prompt's own.

    Both have shape [positions, top + 1]. The prompt's own token, the last one, has probability 0 if
    it is among the likeliest already.
    """
    own = answer.token_ids[:, None]
    ids = np.concatenate([answer.top_ids, own], axis=1)
    logprobs = np.concatenate([answer.top_logprobs, answer.logprobs[:, None]], axis=1)
    p = np.exp(np.maximum(logprobs.astype(np.float64), LEAST_LOGPROB))
    p[:, -1] *= ~(answer.top_ids == own).any(axis=1)
    return ids, p


def _with_rest(p: Array) -> Array:
    """Normalised distributions with the rest as one more outcome."""
    rest = np.maximum(1.0 - p.sum(axis=1, keepdims=True), 0.0) + ROUNDING
    whole = np.concatenate([p, rest], axis=1)
    total: Array = whole.sum(axis=1, keepdims=True)
    return whole / total


def _pairs(reference: Answers, answers: Answers) -> list[tuple[Answer, Answer]]:
    """The two answers to each prompt, in an order that depends only on the prompts."""
    first, second = ({one.prompt: one for one in given} for given in (reference, answers))
    if not first or first.keys() != second.keys():
        raise UnpairedError(
            f"the reference answers {len(first)} prompts and the other {len(second)}, "
            f"{len(first.keys() & second.keys())} of them the same: both must be asked the same"
        )
    pairs = [(first[prompt], second[prompt]) for prompt in sorted(first)]
    for one, other in pairs:
        if len(one.continued) != len(other.continued):
            raise UnpairedError(
                f"the reference continued a prompt by {len(one.continued)} tokens and the other by "
                f"{len(other.continued)}: both must be asked for the same number"
            )
    return pairs


def _sums(reference: Answer, answer: Answer) -> list[float]:
    """One pair's contribution to all measures, in the order that `_measures` expects."""
    kl, seen = kl_nats(reference, answer)
    differ = np.flatnonzero(reference.continued != answer.continued)
    return [
        1.0,
        len(kl),
        kl.sum(),
        seen.sum(),
        (reference.top_ids[:, 0] == answer.top_ids[:, 0]).sum(),
        _own_logprob(reference),
        _own_logprob(answer),
        len(differ) == 0,
        differ[0] if len(differ) else len(reference.continued),
    ]


def _own_logprob(answer: Answer) -> float:
    """The logprob of the prompt's own tokens, summed."""
    return float(np.maximum(answer.logprobs, LEAST_LOGPROB).sum(dtype=np.float64))


def _measures(sums: Array) -> Mapping[str, Array]:
    """The measures from sums over prompts of shape [..., 9]."""
    prompts, positions, kl, seen, agreed, logprob_p, logprob_q, exact, prefix = np.moveaxis(
        sums, -1, 0
    )
    perplexity = np.exp(-logprob_q / positions)
    return {
        "kl": kl / positions,
        "seen": seen / positions,
        "agreed": agreed / positions,
        "perplexity": perplexity,
        "perplexity_delta": perplexity - np.exp(-logprob_p / positions),
        "exact": exact / prompts,
        "prefix": prefix / prompts,
    }
