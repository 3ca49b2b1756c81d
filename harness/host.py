"""The machine that this process runs on: kernel, cores, memory, and their limits."""

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The machine, as seen by the operating system and the control group."""

    kernel: str
    cpu_model: str | None
    num_cpus: int
    num_cpus_usable: int  # by the affinity of this process
    memory_bytes: int
    cgroup_cpus: float | None  # None: no limit
    cgroup_memory_bytes: int | None
    numa_nodes: tuple[str, ...]  # the CPUs of each, as the kernel lists them: "0-15,32-47"
    container: str | None  # its kind, and its image if known


def this_host() -> Host:
    """The machine as it is now."""
    cpus, period = (_cgroup_limit("cpu.max") or ["max", "1"])[:2]
    memory = (_cgroup_limit("memory.max") or ["max"])[0]
    return Host(
        kernel=f"{platform.system()} {platform.release()}",
        cpu_model=_cpu_model(),
        num_cpus=os.cpu_count() or 1,
        num_cpus_usable=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        cgroup_cpus=None if cpus == "max" else int(cpus) / int(period),
        cgroup_memory_bytes=None if memory == "max" else int(memory),
        numa_nodes=tuple(
            (node / "cpulist").read_text().strip()
            for node in sorted(Path("/sys/devices/system/node").glob("node[0-9]*"))
        ),
        container=_container(),
    )


def _container() -> str | None:
    """The kind of container this is, by the traces that each kind leaves, and podman's image."""
    podman = Path("/run/.containerenv")
    if podman.is_file():
        told = re.search('^image="(.+)"$', podman.read_text(), re.MULTILINE)
        return f"podman {told[1]}" if told else "podman"
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return "kubernetes"
    return "docker" if Path("/.dockerenv").exists() else None


def _cpu_model() -> str | None:
    with Path("/proc/cpuinfo").open() as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return None  # Arm kernels do not list it


def _cgroup_limit(name: str) -> list[str] | None:
    """The fields of a limit of this process's control group (version 2); None if there is none."""
    try:
        group = Path("/proc/self/cgroup").read_text().partition("0::/")[2].split("\n")[0]
        return (Path("/sys/fs/cgroup") / group / name).read_text().split()
    except OSError:
        return None
