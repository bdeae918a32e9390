"""Counts and times of requests, in the text format that Prometheus reads."""

import collections
import threading

_BOUNDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)
_PATHS = ("/recommend", "/similar", "/explain", "/fold-in", "/health", "/metrics")


class Measures:
    """Counts requests by path and status, and their seconds by path."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: collections.Counter[tuple[str, int]] = collections.Counter()
        self._buckets: collections.Counter[tuple[str, float]] = collections.Counter()
        self._seconds: collections.Counter[str] = collections.Counter()

    def add(self, path: str, status: int, seconds: float) -> None:
        """Count a request. Paths that are not the service's count as one."""
        path = path if path in _PATHS else "other"
        with self._lock:
            self._counts[path, status] += 1
            self._seconds[path] += seconds  # type: ignore[assignment]
            for bound in (*_BOUNDS, float("inf")):
                self._buckets[path, bound] += seconds <= bound

    def text(self, batches: int) -> str:
        """Write all measures.

        Args:
          batches: answered so far.
        """
        with self._lock:
            lines = ["# TYPE hlr_jax_requests_total counter"]
            for (path, status), count in sorted(self._counts.items()):
                lines.append(f'hlr_jax_requests_total{{path="{path}",status="{status}"}} {count}')
            lines.append("# TYPE hlr_jax_request_seconds histogram")
            for (path, bound), count in sorted(self._buckets.items()):
                name = "+Inf" if bound == float("inf") else bound
                lines.append(f'hlr_jax_request_seconds_bucket{{path="{path}",le="{name}"}} {count}')
            for path, seconds in sorted(self._seconds.items()):
                of_path = sum(n for (p, _), n in self._counts.items() if p == path)
                lines.append(f'hlr_jax_request_seconds_sum{{path="{path}"}} {seconds:.6f}')
                lines.append(f'hlr_jax_request_seconds_count{{path="{path}"}} {of_path}')
            lines.append("# TYPE hlr_jax_batches_total counter")
            lines.append(f"hlr_jax_batches_total {batches}")
        return "\n".join(lines) + "\n"
