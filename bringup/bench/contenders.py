"""A model in a process of its own, which runs one sequence when it is asked to: so that contenders can take turns."""

import contextlib
import multiprocessing
import time
from typing import NamedTuple

from bringup import backends
from bringup.checkpoints import mapped
from bringup.errors import BringupError, blame

#: Seconds that pass, or that the process's threads compute.
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


class Job(NamedTuple):
    """A prompt and decode steps. `steady`: the prompt is run once, and every turn decodes on."""

    users: int
    prefill: int
    decode: int
    steady: bool = False


class Order(NamedTuple):
    """A contender: `kind` hf_bf16, hf_fp32, or an emulated one's label."""

    kind: str
    model: str
    model_py: str
    system: str
    numerics: str
    layers: int | None  # of the model's; None: all
    seed: int
    room: int  # positions of the cache
    clock: str  # of CLOCKS

    @property
    def is_hf(self):
        return self.kind.startswith("hf_")


class Contender:
    """The process. `turn(job)` gives the seconds of each call of forward: the prompt, then the steps."""

    def __init__(self, order: Order):
        context = multiprocessing.get_context("spawn")
        self.kind = order.kind
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, order), daemon=True)
        self.process.start()
        theirs.close()
        self.load_seconds = self._answer()

    def turn(self, job: Job) -> list[float]:
        self.connection.send(job)
        return self._answer()

    def close(self) -> int:
        """Ends the process; its peak memory in bytes."""
        self.connection.send(None)
        peak = self._answer()
        self.process.join()
        return peak

    def _answer(self):
        try:
            what, value = self.connection.recv()
        except EOFError:
            self.process.join()
            raise BringupError(f"{self.kind} ended", got=f"exit code {self.process.exitcode}") from None
        if what == "error":
            raise BringupError(f"{self.kind} failed", got=value)
        return value


def _serve(connection, order: Order):
    try:
        with _opened(order) as (model, seconds):
            connection.send(("ready", seconds))
            sessions = {}
            while (job := connection.recv()) is not None:
                connection.send(("seconds", _turn(model, job, CLOCKS[order.clock], sessions, order.seed)))
        connection.send(("peak", mapped.peak_rss_bytes()))
    except BringupError as error:
        connection.send(("error", str(error)))


def _turn(model, job, clock, sessions, seed):
    from bringup.checkpoints import random_weights
    from bringup.checkpoints.session import Session

    def timed(ids):
        start = clock()
        session(ids)
        return clock() - start

    session = sessions.get(job)
    if session is None:
        session = Session(model, job.users)
        first = timed([random_weights.prompt_ids(model.config, job.prefill, seed + user) for user in range(job.users)])
        if job.steady:
            sessions[job] = session
            timed([[1 + user] for user in range(job.users)])  # the first step may prepare something
    else:
        first = 0.0
    return [first, *(timed([[step * 31 + 7 * user + 5] for user in range(job.users)]) for step in range(job.decode))]


@contextlib.contextmanager
def _opened(order):
    """(the model, seconds that it took)"""
    from bringup.backends import model_files, systems
    from bringup.checkpoints import sources
    from bringup.console import quiet_libraries

    quiet_libraries()
    start = time.perf_counter()
    with contextlib.ExitStack() as stack:
        if not order.is_hf:
            backends.activate("emulator", order.system, order.numerics)
            model_file = model_files.load_model_file(order.model_py, order.system)
        source = sources.find_source(order.model, random_weights=True, seed=order.seed)
        dtype = "float32" if order.kind == "hf_fp32" else "bfloat16"
        model = sources.load_hf_model(source, dtype, layers=order.layers)
        if not order.is_hf:
            device = stack.enter_context(backends.open_system(systems.get(order.system)))
            stack.enter_context(blame(model_file.path, "running the model"))
            model = model_files.build(model_file, model, device, order.room)
        yield model, time.perf_counter() - start
