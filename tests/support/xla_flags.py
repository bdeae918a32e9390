"""Flags by which XLA compiles in less time; imported before JAX."""

import importlib.metadata

# Without emitters of fused loops XLA compiles in half of the time, and in less on one core. XLA
# ends a process that sets a flag it does not have: with each, the first jaxlib that is not known to
# have it.
QUICK = {
    "--xla_cpu_use_fusion_emitters=false": (0, 11),
    "--xla_cpu_parallel_codegen_split_count=1": (0, 13),
}


def known(jaxlib: str = importlib.metadata.version("jaxlib")) -> list[str]:
    """List those of these flags that the installed XLA has."""
    release = tuple(int(part) for part in jaxlib.split(".")[:2])
    return [flag for flag, end in QUICK.items() if release < end]
