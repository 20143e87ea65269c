"""The writer: one thread, one queue, and what waits in it together is done together.

A sync of the disk and a change of threads cost more than most of what is written, so work of the same leader that waits at the
same moment becomes one batch. What a batch means is the store's business.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from kapelle.core.errors import StoreFailed

T = TypeVar("T")


@dataclass(kw_only=True, slots=True)
class Order:
    """Work that waits for the writer, and what came of it."""

    work: Callable[[Any], Any]
    term: int | None
    """None for work that is never done together with others."""
    answer: "asyncio.Future[Any]"
    value: Any = None
    error: BaseException | None = None


class Writer:
    """Hands orders to its thread, in the order in which they came; *carry_out* does a batch there and never raises."""

    def __init__(self, name: str, carry_out: Callable[[Sequence[Order]], None]) -> None:
        self._name = name
        self._carry_out = carry_out
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"{name}-writer")
        self._orders: deque[Order] = deque()
        self._at_work = False
        self._closed = False

    async def order(self, work: Callable[[Any], T], term: int | None) -> T:
        """Have *work* done and return what it returned, or raise what it raised.

        Raises:
            StoreFailed: the writer was closed before it came to this.
        """
        loop = asyncio.get_running_loop()
        order = Order(work=work, term=term, answer=loop.create_future())
        self._orders.append(order)
        if not self._at_work:
            self._at_work = True
            # Not at once: others that are about to order something come with it.
            loop.call_soon(self._begin, loop)
        return await order.answer

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        batch = [self._orders.popleft()]
        while self._orders and batch[0].term is not None and self._orders[0].term == batch[0].term:
            batch.append(self._orders.popleft())
        batch = [order for order in batch if not order.answer.cancelled()]
        if self._closed:
            for order in batch:
                order.error = StoreFailed(f"{self._name} is closed")
            self._end(loop, batch)
            return

        def call() -> None:
            self._carry_out(batch)
            # Where the loop is over already, so is everybody who waited for an answer.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._end, loop, batch)

        self._thread.submit(call)

    def _end(self, loop: asyncio.AbstractEventLoop, batch: Sequence[Order]) -> None:
        for order in batch:
            if order.answer.done():
                continue
            if order.error is not None:
                order.answer.set_exception(order.error)
            else:
                order.answer.set_result(order.value)
        self._at_work = bool(self._orders)
        if self._at_work:
            loop.call_soon(self._begin, loop)

    def close(self, last: Callable[[], None]) -> None:
        """End the thread; *last* is done in it when it is done with what it was given."""
        self._closed = True
        self._thread.submit(last)
        self._thread.shutdown(wait=True)
