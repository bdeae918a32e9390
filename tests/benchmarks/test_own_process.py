"""Objects in processes of their own: what they answer, and that they are stopped in time."""

import threading

import pytest

from benchmarks import own_process
from benchmarks.peers import contest


@pytest.fixture
def remote():
    # An object of the standard library, which can be told to wait.
    found = own_process.Remote(threading.Event)
    yield found
    found.close()


def test_methods_are_called_there(remote):
    remote.allow(60)
    assert remote.call("is_set") is False
    remote.call("set")
    assert remote.call("is_set") is True
    with pytest.raises(own_process.FailedError, match="no attribute 'no_such'"):
        remote.call("no_such")
    assert remote.call("is_set") is True


def test_what_takes_too_long_is_stopped(remote):
    remote.allow(60)
    remote.wait()
    remote.allow(0.2)
    with pytest.raises(own_process.TooLateError):
        remote.call("wait", 60)
    assert remote._process.returncode < 0


def test_who_cannot_be_ready_in_time_is_left_out():
    waits = {"quick": 0.0, "slow": 60.0, "broken": "no number"}
    started = iter(waits.values())
    builds = dict.fromkeys(waits, threading.Event)
    with contest.hold(builds, lambda event: event.call("wait", next(started)), limit=1.0) as found:
        assert list(found.ready) == ["quick"]
        assert found.rows["quick"]["compile_seconds"] < 1
        assert found.rows["slow"] == {"left_out": "not compiled within 1 s"}
        assert found.rows["broken"]["left_out"].startswith("failed: TypeError")


def test_a_disagreement_stops_everybody():
    def disagrees(event):
        raise RuntimeError("losses differ")

    with pytest.raises(RuntimeError, match="losses differ"):
        contest.hold({"peer": threading.Event}, disagrees, is_local=True)
