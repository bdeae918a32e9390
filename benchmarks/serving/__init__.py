"""How long requests take."""
