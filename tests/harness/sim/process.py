"""A simulator in a process of its own, for tests."""

import json
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import asdict
from pathlib import Path

from tests.harness.models import TINY


def write_model(folder: Path, **overrides) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(asdict(TINY.shape) | overrides))
    return folder


def command(model: Path, *flags: str) -> list[str]:
    return [
        *(sys.executable, "-m", "harness.sim", str(model), "--served-model-name", "m"),
        *("--host", "127.0.0.1", "--port", "0", *flags),
    ]


class SimProcess:
    """`with SimProcess(model, "--fault", …) as sim`: ready when the block begins."""

    def __init__(self, model: Path, *flags: str) -> None:
        self.lines: list[str] = []
        self._popen = subprocess.Popen(
            command(model, *flags), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        self.url = ""

    def __enter__(self) -> "SimProcess":
        assert self._popen.stderr is not None
        for line in self._popen.stderr:
            self.lines.append(line)
            if found := re.search(r"server on (http://\S+)", line):
                self.url = found[1]
            if "startup complete" in line:
                return self
        raise AssertionError("".join(self.lines))

    def __exit__(self, *_: object) -> None:
        self._popen.kill()
        self.wait()

    @property
    def pid(self) -> int:
        return self._popen.pid

    def signal(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def wait(self) -> int:
        assert self._popen.stderr is not None
        if not self._popen.stderr.closed:
            self.lines += list(self._popen.stderr)
            self._popen.stderr.close()
        return self._popen.wait(timeout=30)

    def open(self, path: str, body: object = None):
        """A reply that may be read line by line; a POST when there is a body."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        try:
            return urllib.request.urlopen(urllib.request.Request(self.url + path, data), timeout=30)
        except urllib.error.HTTPError as error:
            return error

    def fetch(self, path: str, body: object = None) -> tuple[int, str]:
        with self.open(path, body) as reply:
            return reply.status, reply.read().decode()

    def stream(self, path: str = "/v1/completions", **body) -> list:
        """The events of a stream, decoded, `[DONE]` as it is."""
        text = self.fetch(path, {"model": "m", "stream": True} | body)[1]
        payloads = [event.removeprefix("data: ") for event in text.split("\n\n") if event]
        return [p if p == "[DONE]" else json.loads(p) for p in payloads]
