"""What the simulator is held against: the points of the reference results, as they were run."""

from benchmarks.simulator_points import read


def test_every_point_has_the_lengths_that_its_study_tells() -> None:
    lengths = {
        study: {(p.input_tokens, p.output_tokens) for p in read().points if p.study == study}
        for study in ("baseline", "batching", "kv_cache", "h200/kv_cache")
    }
    assert lengths == {
        "baseline": {(512, (64, 192))},
        "batching": {(512, (128, 128))},
        "kv_cache": {(512, (64, 192)), (2048, (64, 192))},
        "h200/kv_cache": {(2048, (64, 192))},
    }
