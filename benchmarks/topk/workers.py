"""Worker processes that live through many tasks, one at a time each; one that dies or hangs is replaced."""

import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Generic, Protocol, TypeVar

from benchmarks.topk.results import Record

_POLL_SECONDS = 1.0
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Task(Protocol):
    """Something to measure."""

    @property
    def patience(self) -> float:
        """Seconds after which a worker that has not answered counts as hung."""


T = TypeVar("T", bound=Task)


class WorkerError(RuntimeError):
    """A worker ended before it was ready."""


@dataclass(eq=False)
class _Worker(Generic[T]):
    process: BaseProcess
    connection: Connection
    task: T | None = None
    is_ready: bool = False
    is_lost: bool = False
    until: float = float("inf")

    def give(self, task: T) -> None:
        self.task, self.until = task, time.monotonic() + task.patience
        self.connection.send(task)

    def stop(self) -> None:
        self.connection.close()
        self.process.kill()
        self.process.join()


def run_tasks(
    tasks: Sequence[T], *, work: Callable[[T], Record], prepare: Callable[[], None], jobs: int
) -> Iterator[tuple[T, Record]]:
    """Yields every task with its record as it ends, `jobs` of them at a time.

    Workers are new processes with one thread each. They import, load and warm up in `prepare`, before they get their first task.
    A task whose worker dies, or does not answer within the task's patience, yields a record that holds "error" alone.

    Args:
        tasks: What to do, in this order.
        work: Does one task; a function of a module, as is `prepare`, since both go to other processes.
        prepare: Called once in each worker.
        jobs: How many workers.

    Raises:
        WorkerError: A worker ended before it was ready.
    """
    for variable in _THREAD_VARIABLES:
        os.environ[variable] = "1"
    pending = deque(tasks)
    workers: list[_Worker[T]] = [_start(work, prepare) for _ in range(min(jobs, len(tasks)))]
    try:
        while workers:
            wait([worker.connection for worker in workers], _POLL_SECONDS)
            for worker in list(workers):
                record = _answer(worker)
                if record is not None and worker.task is not None:
                    yield worker.task, record
                    worker.task = None
                if worker.task is not None or not worker.is_ready:
                    continue
                if pending and not worker.is_lost:
                    worker.give(pending.popleft())
                    continue
                worker.stop()
                workers.remove(worker)
                if pending:
                    workers.append(_start(work, prepare))
    finally:
        for worker in workers:
            worker.stop()


def _answer(worker: _Worker[T]) -> Record | None:
    """What a worker sent, or why it will send nothing; None while it is busy."""
    try:
        if worker.connection.poll():
            sent = worker.connection.recv()
            if worker.is_ready:
                return sent
            worker.is_ready = True
            return None
    except (EOFError, ConnectionResetError):
        worker.process.join()
        worker.is_lost = True
        if not worker.is_ready:
            raise WorkerError("a worker ended before it was ready; its message is above") from None
        return {"error": f"the worker died with exit code {worker.process.exitcode}"}
    if worker.task is not None and time.monotonic() > worker.until:
        worker.is_lost = True
        return {"error": "the worker hung and was stopped"}
    return None


def _start(work: Callable[[T], Record], prepare: Callable[[], None]) -> _Worker[T]:
    # Spawned, not forked: a fork of a process whose libraries hold threads and locks can hang.
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, work, prepare), daemon=True)
    process.start()
    there.close()
    return _Worker(process, here)


def _serve(connection: Connection, work: Callable[[T], Record], prepare: Callable[[], None]) -> None:
    """The life of a worker. It ends when the other side of the connection is gone."""
    # Ctrl-C reaches the whole group; the parent alone answers it, or a search would return what it has as if time were over.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    prepare()
    connection.send(None)
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        try:
            record = work(task)
        except Exception as error:
            # An error is a result, so that a long measurement goes on.
            record = {"error": f"{type(error).__name__}: {error}"}
        connection.send(record)
