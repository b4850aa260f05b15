"""Tasks that each write a file, spread over processes of this machine (joblib) or the nodes of a Ray cluster.

A task whose file is there is done: what was interrupted, or has lost a node, is started again and runs the rest. What
one task raises, or the death of its process, is told at the end and loses no other.
"""

import hashlib
import os
import traceback
from pathlib import Path

from bringup import arguments
from bringup.errors import BadInput, BringupError
from bringup.files import PACKAGES

ENGINES = ("processes", "ray")
RETRIES = 3  # of a task whose node or process Ray has lost
DIED = "its process died, perhaps out of memory"


def add_arguments(parser, what):
    parser.add_argument("--jobs", type=arguments.whole(-1, 1024), metavar="N",
                        help=f"{what} at a time, -1: one per core (default: 1; on Ray one per core of it)")  # fmt: skip
    parser.add_argument("--engine", choices=ENGINES, default="processes",
                        help="processes of this machine, or a Ray cluster (default: processes)")  # fmt: skip


def check(args):
    """Refuses what the engine cannot do, before anything runs."""
    if args.jobs == 0:
        raise BadInput("--jobs is out of range", got=0, want="1 or more; -1 for as many as there are cores")
    if args.engine == "ray":
        _ray()


def run(write, tasks, jobs=None, engine="processes", title="tasks", apart=False):
    """Calls write(*args, path) for each {path: args} that has no file yet.

    `apart`: in a process of its own also where there is one at a time.
    Returns   {path: why} of those that have no file at the end
    """
    from bringup.console import progress

    tasks = {Path(path): args for path, args in tasks.items() if not Path(path).is_file()}
    if not tasks:
        return {}
    failed = {}
    with progress(title, len(tasks)) as advance:
        found = _on_ray(write, tasks, jobs or -1) if engine == "ray" else _in_processes(write, tasks, jobs or 1, apart)
        for path, why in found:
            if why:
                failed[path] = why
            advance()
    return failed


def _task(write, args, path):
    """(path, why it failed or None); what has been done meanwhile, by a node that was then lost, is not done again."""
    if path.is_file():
        return path, None
    try:
        write(*args, path)
    except BringupError as error:
        return path, str(error)
    except Exception as error:
        at = traceback.extract_tb(error.__traceback__)[-1]
        return path, f"{type(error).__name__}: {error} ({Path(at.filename).name}:{at.lineno})"
    return path, None


def _task_in(folder, write, args, path):
    """On another node: names are relative to the folder that the command runs in, on the shared file system."""
    os.chdir(folder)
    return _task(write, args, path)


def _in_processes(write, tasks, jobs, apart):
    """One that kills its process is run once more alone, and then given up."""
    from joblib import Parallel, delayed
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    left = dict(tasks)
    ahead = jobs if apart and jobs > 0 else "2 * n_jobs"
    pool = Parallel(n_jobs=max(jobs, 2) if apart and jobs > 0 else jobs, pre_dispatch=ahead, batch_size=1,
                    return_as="generator_unordered")  # fmt: skip
    try:
        for path, why in pool(delayed(_task)(write, args, path) for path, args in tasks.items()):
            del left[path]
            yield path, why
    except TerminatedWorkerError:
        for path, args in left.items():
            try:
                yield from Parallel(n_jobs=2)([delayed(_task)(write, args, path)])  # 2: in a process of its own
            except TerminatedWorkerError:
                yield path, DIED


def _on_ray(write, tasks, jobs):
    """On the cluster that RAY_ADDRESS names or that this machine belongs to, else on one of this machine alone.

    A task whose node was lost runs again on another.
    """
    ray = _ray()
    ours = not ray.is_initialized()
    if ours:
        ray.init(log_to_driver=False, logging_level="error")
    try:
        remote = ray.remote(max_retries=RETRIES)(_task_in)
        todo, running = list(tasks.items()), {}
        while todo or running:
            while todo and (jobs < 0 or len(running) < jobs):
                path, args = todo.pop(0)
                running[remote.remote(os.getcwd(), write, args, path)] = path
            (done,), _ = ray.wait(list(running))
            path = running.pop(done)
            try:
                yield ray.get(done)
            except ray.exceptions.RayError as error:
                yield path, f"{DIED} ({type(error).__name__})"
    finally:
        if ours:
            ray.shutdown()


def _ray():
    try:
        import ray
    except ImportError as error:
        hint = "pip install 'ttnn-bringup[cluster]'; or --engine processes"
        raise BadInput("--engine ray needs Ray", hint=hint) from error
    return ray


def code(model_py):
    """A digest of what a model file's result depends on: its text, that of those it may build on (its other systems,
    its neighbours), and ours."""
    inside = model_py.parts[-6:-5] == ("models",)  # models/<org>/<model>/<system>/functional/model.py
    beside = model_py.parents[2].rglob("*.py") if inside else model_py.parent.glob("*.py")
    ours = PACKAGES
    digest = hashlib.sha256()
    for path in sorted([*beside, *(ours / "bringup").rglob("*.py"), *(ours / "ttnn_emulator").rglob("*.py")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()
