"""What the benchmarks share. Each module imports only what it needs: some measure memory."""
