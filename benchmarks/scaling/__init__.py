"""Training on several devices: time, traffic and memory, and a model of them."""
