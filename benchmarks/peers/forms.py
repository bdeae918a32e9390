"""The forms in which PyTorch runs the same equations. Imports nothing heavy."""

from typing import Any

EAGER = "eager"
COMPILED = "compiled"
# `torch.compile` with mode="reduce-overhead": each part a CUDA graph, looked after by PyTorch.
GRAPHS = "compiled, reduce-overhead"
# A whole step, sampling and Adam included, compiled and captured as one CUDA graph by hand.
CAPTURED = "compiled, one graph"


def offered(platform: str) -> tuple[str, ...]:
    """List the forms there are on a platform, `cpu` or `gpu`."""
    return (EAGER, COMPILED, GRAPHS, CAPTURED) if platform == "gpu" else (EAGER, COMPILED)


def offered_for_ranking(platform: str) -> tuple[str, ...]:
    """List the forms there are of ranking, whose chunks are graphs of themselves."""
    return tuple(form for form in offered(platform) if form != CAPTURED)


def compile_options(form: str) -> dict[str, Any]:
    """Return the arguments of `torch.compile`; shapes never change."""
    return {"dynamic": False, "mode": "reduce-overhead" if form == GRAPHS else "default"}
