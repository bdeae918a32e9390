"""Serve a trained model or a baseline over HTTP.

  hlr-jax serve --workdir=runs/hlr --port=8000
  hlr-jax serve --workdir=model.safetensors --host=0.0.0.0

Then http://127.0.0.1:8000/docs describes and tries its requests: /recommend, /similar, /explain,
/fold-in, /health and /metrics. Requests that come together are answered together.
Needs pip install 'hlr_jax[serve]'.
"""

import contextlib
import signal
import socket
from typing import TYPE_CHECKING

from absl import flags

from hlr_jax import cli
from hlr_jax.errors import InputError

if TYPE_CHECKING:
    import uvicorn

_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder that hlr-jax train wrote, or a saved model.", required=True
)
_HOST = flags.DEFINE_string("host", "127.0.0.1", "Address to listen on.")
_PORT = flags.DEFINE_integer("port", 8000, "Port; 0 takes a free one.", 0, 65535)
_MAX_USERS = flags.DEFINE_integer("max_users", 1000, "Users of a request.", lower_bound=1)
_MAX_K = flags.DEFINE_integer("max_k", 1000, "Items of a list.", lower_bound=1)

# Users that busy times answer together, each a compiled program.
_BATCHES = (1, 2, 4, 8, 16, 32, 64)


def main() -> None:
    """Load, compile, listen."""
    try:
        from hlr_jax.serving import Limits, make_app, make_server
    except ImportError as error:
        raise InputError(f"{error}; pip install 'hlr_jax[serve]'") from None
    from hlr_jax import baselines

    recommender = baselines.load(_WORKDIR.value)
    listener = _listener(_HOST.value, _PORT.value)
    host, port = listener.getsockname()[:2]
    # The programs that most requests use are compiled before the first comes.
    users = recommender.known_users[: max(_BATCHES)].tolist()
    for number in _BATCHES:
        recommender.recommend(users[:number], min(10, recommender.dataset.num_items))
    app = make_app(recommender, Limits(users=_MAX_USERS.value, k=_MAX_K.value))
    cli.say(f"{recommender!r}\nlistening on http://{host}:{port}, described at /docs")
    _run(make_server(app), listener)


def _run(server: "uvicorn.Server", listener: socket.socket) -> None:
    """Answer until a signal ends it, which is how a service ends: it has not failed."""
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, server.handle_exit)
    # What is being answered is answered; then the server raises the signal that it had.
    with contextlib.suppress(KeyboardInterrupt):
        server.run([listener])
    cli.say("stopped")


def _listener(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        raise InputError(
            f"--host={host} --port={port}: cannot listen there ({error.strerror}); choose another "
            "port, or 0 for a free one"
        ) from None
    return listener
