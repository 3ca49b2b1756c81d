"""Runs one family of probes, in the interpreter that has PyTorch.

    python -m probes FAMILY OPTIONS        in the folder harness/hardware; OPTIONS is JSON

It imports PyTorch, says so, and waits for a line on standard input, so that the harness can have
the next family ready while one measures. When standard input closes, the harness is gone, and this
process ends.
"""

import importlib
import json
import os
import signal
import sys
from threading import Thread

from .options import Options
from .record import tell

STDIN = 0


def main() -> None:
    family, options = sys.argv[1], Options(**json.loads(sys.argv[2]))
    module = importlib.import_module(f".{family}", __package__)
    tell(ready=True)
    if not os.read(STDIN, 100):
        return
    Thread(target=_die_with_harness, daemon=True).start()
    module.run(options)
    tell(done=True)


def _die_with_harness() -> None:
    while os.read(STDIN, 100):  # unbuffered: a lock held here would disturb the interpreter's exit
        pass
    if os.getpgrp() == os.getpid():  # as the harness starts it: its children end with it
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    main()
