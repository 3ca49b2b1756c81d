"""A server that behaves as its arguments say, for tests of the start: fake_server.py PORT [HABIT…].

HABIT: die, die_at_token, refuse, empty (no token), hang, slow (never up), once=FILE (its port is
taken, the first time).
"""

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

port, *habits = sys.argv[1:]
settled = False


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        match self.path.partition("?")[0]:
            case "/health":
                self.answer(503 if "slow" in habits else 200, "")
            case "/v1/models":
                self.answer(200, json.dumps({"data": [{"id": "fake", "max_model_len": 2048}]}))
            case "/metrics":
                self.answer(
                    200,
                    'vllm:num_requests_running{engine="0"} 0.0\n'
                    'vllm:cache_config_info{block_size="16",num_gpu_blocks="100"} 1.0\n'
                    f"fake:settled {int(settled)}\n",
                )
            case _:
                self.answer(404, "")

    def do_POST(self):
        global settled
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/reset_prefix_cache":
            settled = True
            self.answer(200, "")
        elif "die_at_token" in habits:
            print("RuntimeError: no such kernel", flush=True)
            os._exit(0)
        elif "hang" in habits:
            time.sleep(1000)
        elif "refuse" in habits:
            self.answer(200, json.dumps({"error": {"message": "EngineCore encountered an issue"}}))
        else:
            usage = {"prompt_tokens": 3, "completion_tokens": int("empty" not in habits)}
            self.answer(200, json.dumps({"choices": [{"text": "t7"}], "usage": usage}))

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


print("INFO non-default args: {'max_num_seqs': 8}", flush=True)
for habit in habits:
    if habit.startswith("once=") and not Path(habit[5:]).exists():
        Path(habit[5:]).touch()
        raise OSError(98, "Address already in use")
if "die" in habits:
    raise ModuleNotFoundError("No module named 'flashinfer'")
server = ThreadingHTTPServer(("127.0.0.1", int(port)), Handler)
print("INFO:     Application startup complete.", flush=True)
try:
    server.serve_forever()
except KeyboardInterrupt:
    server.server_close()
os._exit(0)  # requests that hang have threads of their own
