"""How well models and baselines recommend."""
