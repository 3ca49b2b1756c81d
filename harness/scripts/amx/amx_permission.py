"""A plugin for vLLM's CPU build: ask Linux for AMX before anything uses it.

A process must ask for the permission to use AMX's tile registers, or its first tile instruction is
an illegal one. vLLM 0.32's attention kernel takes AMX where the processor has it and does not ask
(with torch.compile, PyTorch happens to): a worker then dies of SIGILL at the first request. vLLM
calls the plugins that it finds on sys.path in each of its processes.
"""


def register() -> None:
    """Called by vLLM."""
    import torch

    torch.cpu._init_amx()
