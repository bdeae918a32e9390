"""Answer requests that come at the same time together, one batch after another."""

import asyncio
import concurrent.futures
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

Result = TypeVar("Result")


class _Waiting(NamedTuple):
    """A request that waits for its batch."""

    users: Sequence[int]
    k: int
    answer: "asyncio.Future[list[Any]]"


class Batcher:
    """Collects requests while a batch is being answered, and answers them as the next one.

    So a request on a quiet service waits for nobody, and a busy one ranks for many users at once.
    Everything that computes runs on one thread: a batch uses all cores by itself.
    """

    def __init__(self, answer: Callable[[list[int], int], list[list[Any]]], most: int) -> None:
        """Batch requests.

        Args:
          answer: makes lists of `k` for rows of users, one for each.
          most: users that are answered together.
        """
        self._answer, self._most = answer, most
        self._waiting: list[_Waiting] = []
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "ranking")
        self._task: asyncio.Task[None] | None = None
        self.batches = 0

    async def lists(self, users: Sequence[int], k: int) -> list[Any]:
        """Wait for the lists of some users."""
        answer: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(users, k, answer))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())
        return await answer

    async def run(self, call: Callable[[], Result]) -> Result:
        """Run something else on the thread that ranks."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    async def _work(self) -> None:
        while self._waiting:
            batch = self._next()
            try:
                await self._answer_all(batch)
            except Exception:
                # One request's fault is not that of the others.
                for request in batch:
                    try:
                        await self._answer_all([request])
                    except Exception as error:
                        if not request.answer.done():
                            request.answer.set_exception(error)

    async def _answer_all(self, batch: list[_Waiting]) -> None:
        users = [user for request in batch for user in request.users]
        k = max(request.k for request in batch)
        lists = await self.run(functools.partial(self._answer, users, k))
        self.batches += 1
        start = 0
        for request in batch:
            mine = lists[start : start + len(request.users)]
            start += len(request.users)
            if not request.answer.done():  # Nobody waits for a request that was given up.
                request.answer.set_result([of_user[: request.k] for of_user in mine])

    def _next(self) -> list[_Waiting]:
        """Take waiting requests, the oldest first, as many as fit; one at least."""
        batch, users = [self._waiting.pop(0)], 0
        users = len(batch[0].users)
        while self._waiting and users + len(self._waiting[0].users) <= self._most:
            batch.append(self._waiting.pop(0))
            users += len(batch[-1].users)
        return batch
