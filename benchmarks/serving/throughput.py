"""Requests a second, and milliseconds of each, of the service on this machine.

  python -m benchmarks.serving.throughput

Starts `hlr-jax serve` with a model of ML-1M's size (see `requests`), and asks it for the 10 best
items of one user a time over HTTP on the loopback, by some clients at once: threads of this process
that each keep a connection and send the next request when the last is answered. The clients share
the cores with the service.
"""

import concurrent.futures
import contextlib
import http.client
import json
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from absl import app, flags

from benchmarks import output, report
from benchmarks.serving import requests

_MODELS = flags.DEFINE_list("served", ["cml", "hlr"], "Models to serve.")
_CLIENTS = flags.DEFINE_list("clients", ["1", "8", "64"], "Clients at once.")
_SECONDS = flags.DEFINE_float("seconds", 10.0, "How long each number of clients asks.")

# Seconds in which sizes of batches come up that are compiled yet.
WARM_UP = 15.0


@contextlib.contextmanager
def service(model: str) -> Iterator[int]:
    """Serve an untrained model from another process; yields the port."""
    with tempfile.TemporaryDirectory() as folder:
        saved = pathlib.Path(folder) / "model.safetensors"
        requests.untrained(model).save(saved)
        command = [sys.executable, "-m", "hlr_jax", "serve", f"--workdir={saved}", "--port=0"]
        process = subprocess.Popen(command, cwd=output.ROOT, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            line = next(line for line in process.stdout if line.startswith("listening on"))
            port = int(line.split(",")[0].rpartition(":")[2])
            wait_for(port)
            yield port
        finally:
            process.terminate()
            process.wait()


def wait_for(port: int) -> None:
    """Wait until the service answers."""
    for _ in range(100):
        with contextlib.suppress(OSError):
            connection = http.client.HTTPConnection("127.0.0.1", port)
            connection.request("GET", "/health")
            connection.getresponse()
            return
        time.sleep(0.1)
    raise RuntimeError("the service does not answer")


def ask(port: int, seed: int, until: float, times: list[tuple[float, float]]) -> None:
    """Send requests until a time; notes when each ended, and how long it took."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    users = np.random.default_rng(seed).integers(0, 6000, 100_000).tolist()
    for user in users:
        start = time.perf_counter()
        if start >= until:
            break
        body = json.dumps({"users": [user], "k": requests.K})
        connection.request("POST", "/recommend", body, {"content-type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise RuntimeError(f"user {user}: status {answer.status}")
        end = time.perf_counter()
        times.append((end, end - start))
    connection.close()


def measured(port: int, clients: int) -> dict[str, Any]:
    """Ask by some clients at once, and leave the first seconds out."""
    times: list[tuple[float, float]] = []
    start = time.perf_counter()
    until = start + WARM_UP + _SECONDS.value
    with concurrent.futures.ThreadPoolExecutor(clients) as threads:
        asking = [threads.submit(ask, port, seed, until, times) for seed in range(clients)]
    for client in asking:
        client.result()
    kept = np.array([taken for end, taken in times if end >= start + WARM_UP])
    return {
        "clients": clients,
        "requests_per_second": len(kept) / _SECONDS.value,
        "p50": 1e3 * float(np.median(kept)),
        "p99": 1e3 * float(np.quantile(kept, 0.99)),
    }


def main(argv: list[str]) -> None:
    """Serve each model, print and write."""
    output.check(argv)
    results = []
    for model in _MODELS.value:
        with service(model) as port:
            for clients in map(int, _CLIENTS.value):
                found = {"model": model} | measured(port, clients)
                results.append(found)
                print(
                    f"{model:<8}{clients:>4} clients {found['requests_per_second']:8.0f}/s"
                    f"{found['p50']:8.1f}{found['p99']:8.1f} ms (p50, p99)",
                    flush=True,
                )
    output.write("serving/throughput.json", {**report.provenance("jax"), "results": results})


if __name__ == "__main__":
    app.run(main)
