"""The checks made once for each engine setting, apart from its runs; None skips one."""

from dataclasses import fields

from pydantic import Field
from pydantic.dataclasses import dataclass

from harness.presentation import Names
from loadgen.config import STRICT


@dataclass(kw_only=True, config=STRICT)
class AccuracyCheck:
    """What a precision costs: answers to the same prompts, compared with another case's."""

    reference: Names = Field(
        min_length=1,
        description="cases to compare with, of which the first that was answered is used",
    )
    path: str | None = Field(
        None,
        description='held-out prompts {"prompts": [[token ids], …]}; default: the model\'s own',
    )
    prompts: int = Field(64, ge=2, description="number of held-out prompts")
    prompt_tokens: int = Field(256, ge=2, description="maximum tokens of each")
    top_logprobs: int = Field(
        20, ge=1, le=20, description="next tokens whose probabilities are requested"
    )
    continuation_tokens: int = Field(64, ge=1, description="tokens of each greedy continuation")
    repeats: int = Field(
        2, ge=1, description="passes; two show how reproducible a server's answers are"
    )
    concurrency: int = Field(8, ge=1, description="prompts asked at the same time")
    timeout_s: float = Field(300.0, gt=0, description="limit for the reply to one prompt")


@dataclass(kw_only=True, config=STRICT)
class TaskAccuracyCheck:
    """Tasks of lm-evaluation-harness, run against the server that is measured."""

    tasks: Names = Field(
        min_length=1, description="lm_eval tasks or groups that have acc or exact_match"
    )
    limit: int | None = Field(None, ge=1, description="questions per task [all]")
    num_fewshot: int | None = Field(
        None, ge=0, description="examples before each question [the task's own]"
    )
    include_path: str | None = Field(None, description="folder with your own tasks")
    python: str | None = Field(None, description="interpreter that has lm_eval; default: this one")
    concurrency: int = Field(8, ge=1, description="questions asked at the same time")
    timeout_s: float = Field(3600.0, gt=0, description="limit for all tasks together")


@dataclass(kw_only=True, config=STRICT)
class LongestContextCheck:
    """The longest prompt that is really served, found by doubling, then bisection."""

    start_tokens: int = Field(1024, ge=2, description="length of the first prompt")
    timeout_s: float = Field(120.0, gt=0, description="limit for the reply to one prompt")


@dataclass(kw_only=True, config=STRICT)
class OfflineCheck:
    """vLLM's throughput without a server, which shows what the serving layer costs."""

    prompts: int = Field(2048, ge=1, description="requests given to vLLM at once")
    timeout_s: float = Field(900.0, gt=0, description="limit for start-up and work together")


@dataclass(kw_only=True, config=STRICT)
class Checks:
    """All checks that an engine setting can have."""

    accuracy: AccuracyCheck | None = None
    task_accuracy: TaskAccuracyCheck | None = None
    longest_context: LongestContextCheck | None = None
    offline: OfflineCheck | None = None

    @property
    def names(self) -> list[str]:
        """The checks that are asked for."""
        return [field.name for field in fields(self) if getattr(self, field.name) is not None]
