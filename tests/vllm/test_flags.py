"""The flags read from a real vLLM's source, against its own parser. Needs HARNESS_VLLM_PYTHON."""

import json
import os
import subprocess

import pytest

from harness.engines.flags import known_flags
from harness.environment import vllm_installed

PYTHON = os.environ.get("HARNESS_VLLM_PYTHON", "")
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(not PYTHON, reason="HARNESS_VLLM_PYTHON names no interpreter with vLLM"),
]
ASK = """
import json
try:
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
except ImportError:
    from vllm.entrypoints.openai.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = make_arg_parser(FlexibleArgumentParser())
print(json.dumps([name for action in parser._actions for name in action.option_strings]))
"""


def test_the_flags_that_are_read_are_those_of_its_parser() -> None:
    printed = subprocess.run([PYTHON, "-c", ASK], capture_output=True, text=True, check=True).stdout
    real = {name for name in json.loads(printed.splitlines()[-1]) if name.startswith("--")}
    build = vllm_installed(PYTHON)
    assert build is not None
    read = known_flags(build.folder)
    assert read is not None
    switched_off = {name for name in real if name.replace("--no-", "--", 1) in read - {name}}
    assert real - switched_off == read | {"--help"}
