"""A small tuning on the simulator: six settings, those with more API servers clearly the best.

A single API server takes 2 ms a request, so short replies to 16 streams wait for it.
"""

from pathlib import Path

NAME = "small"
TUNE = """\
# @package _global_
# Small: six settings, those with more API servers clearly the best.
load: {concurrency: 16, input_tokens: 16, output_tokens: {dist: uniform, min: 2, max: 4},
       warmup_s: 0.2, warmup_max_s: 1, ramp_s: 0.1, duration_s: 0.6}
client: {calibrate: false}
tune:
  maximise: output_tok_per_s
  constraints: [requests_failed < 1, tpot_p99_s < 100 x defaults]
  space:
    api_server_count: [2, 4]
    enforce_eager: [true]
  budget: {launches: 10, minutes: 30}
  proof: {launches: 2, ablation: false, allow: [client_busy, client_late, sim_late]}
  screen: null
"""


def conf(folder: Path, text: str = TUNE) -> Path:
    """A configuration folder that holds it."""
    (folder / "conf" / "tune").mkdir(parents=True, exist_ok=True)
    (folder / "conf" / "tune" / f"{NAME}.yaml").write_text(text)
    return folder / "conf"


def words(folder: Path, *more: str, text: str = TUNE) -> list[str]:
    """Its command line."""
    return [
        "--config-dir",
        str(conf(folder, text)),
        f"tune={NAME}",
        "engine=sim",
        "model=tiny",
        *more,
    ]
