from pathlib import Path

import pytest

from harness.engines.flags import ENGINE, FRONT_ENDS, flag_of, known_flags, knows

# as vLLM writes them
ENGINE_SOURCE = """
class EngineArgs:
    not_a_flag: int = 1

    @staticmethod
    def add_cli_args(parser):
        group = parser.add_argument_group(title="SchedulerConfig")
        group.add_argument("--max-num-seqs", **kwargs["max_num_seqs"])
        group.add_argument(
            "--data-parallel-size", "-dp", **kwargs["data_parallel_size"]
        )
        return parser
"""
FRONT_END_SOURCE = """
@config
class BaseFrontendArgs:
    enable_prompt_tokens_details: bool = False
    def add_cli_args(cls, parser):
        group.add_argument(*extra_flags, f"--{key.replace('_', '-')}", **value)

@config
class FrontendArgs(BaseFrontendArgs):
    uvicorn_log_level: Literal["debug"] = "debug"

class Other:
    field: int = 1

parser.add_argument("model_tag", nargs="?")
parser.add_argument("--api-server-count", "-asc", type=int)
"""
KNOWN = frozenset(
    {
        "--max-num-seqs",
        "--data-parallel-size",
        "--enable-prompt-tokens-details",
        "--uvicorn-log-level",
        "--api-server-count",
    }
)


@pytest.fixture
def package(tmp_path):
    """Writes the files of a vLLM."""

    def write(front_end: Path, engine_source: str = ENGINE_SOURCE) -> Path:
        for path, source in ((ENGINE, engine_source), (front_end, FRONT_END_SOURCE)):
            (tmp_path / path).parent.mkdir(parents=True)
            (tmp_path / path).write_text(source)
        return tmp_path

    return write


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_flags_are_read_wherever_a_version_keeps_the_front_end_s(package, front_end):
    assert known_flags(package(front_end)) == KNOWN


@pytest.mark.parametrize("source", ["def (", "x = 1", "\0"])
def test_files_that_cannot_be_understood_say_nothing(package, source):
    assert known_flags(package(FRONT_ENDS[0], source)) is None


def test_files_that_are_not_there_say_nothing(tmp_path):
    assert known_flags(tmp_path) is None
    assert known_flags(None) is None


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("--max-num-seqs", True),
        ("--max-num-seq", True),  # cut short, as argparse takes it
        ("--no-enable-prompt-tokens-details", True),
        ("--max-num-seqs.a", True),
        ("--max-num-seqz", False),
        ("--max-num-seqs-too", False),
        ("--not-a-flag", False),
        ("--field", False),
    ],
)
def test_a_flag_is_known_as_the_parser_would_take_it(flag, expected):
    assert knows(KNOWN, flag) is expected


def test_a_setting_s_flag_has_dashes():
    assert flag_of("max_num_seqs") == "--max-num-seqs"
