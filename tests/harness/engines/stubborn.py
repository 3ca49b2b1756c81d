"""A server's worst habits: a worker in a session of its own that shrugs off signals.

stubborn.py PIDS_FILE [SIGNAL…]: ignores these signals itself; its worker ignores all it can.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

WORKER = """
import os, signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
os.write(int(sys.argv[1]), b"ready")
signal.pause()
"""

pids_file, *ignored = sys.argv[1:]
for name in ignored:
    signal.signal(signal.Signals[name], signal.SIG_IGN)
ready, told = os.pipe()
worker = subprocess.Popen(
    [sys.executable, "-c", WORKER, str(told)], start_new_session=True, pass_fds=[told]
)
os.read(ready, 5)
print("line one", flush=True)
print("line two", file=sys.stderr, flush=True)
draft = Path(pids_file + ".draft")
draft.write_text(f"{os.getpid()} {worker.pid}")
draft.rename(pids_file)
try:
    while True:
        signal.pause()
except KeyboardInterrupt:
    print("interrupted", flush=True)
