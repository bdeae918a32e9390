"""Programs that measure the library: its speed, its scaling over devices, its accuracy.

Run them from the root of the repository, as in `python -m benchmarks.speed.training`.
"""
