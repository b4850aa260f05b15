"""Tasks over processes and over a Ray cluster that loses a node: nothing is lost, nothing done is done again."""

import functools
import os
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from bringup import spread
from bringup.errors import BadInput
from bringup.tuning import sweep
from tests.tuning import test_sweep


def write(what, path):
    """A task that does as it is called, and notes that it ran."""
    with (path.parent / "ran").open("a") as ran:
        ran.write(what + "\n")
    if what == "dies":
        os._exit(9)
    if what == "raises":
        raise KeyError(what)
    if what == "refused":
        raise BadInput("no such thing", got=what)
    if what == "interrupted":
        raise KeyboardInterrupt
    path.write_text(what)


def run(folder, *names, **options):
    """(why by name, the names that ran)"""
    failed = spread.run(write, {folder / name: (name,) for name in names}, **options)
    ran = (folder / "ran").read_text().split() if (folder / "ran").exists() else []
    return {path.name: why for path, why in failed.items()}, ran


@pytest.mark.parametrize("options", [{}, {"jobs": 1, "apart": True}, {"jobs": 2}], ids=["here", "apart", "two"])
def test_what_fails_loses_no_other_and_what_is_done_is_not_done_again(tmp_path, options):
    failed, ran = run(tmp_path, "raises", "a", "refused", "b", **options)
    assert sorted(ran) == ["a", "b", "raises", "refused"]
    assert failed["raises"].startswith("KeyError: 'raises' (test_spread.py:")
    assert failed["refused"] == "no such thing\n  got    refused"
    assert [(tmp_path / name).read_text() for name in "ab"] == ["a", "b"]
    assert run(tmp_path, "a", "b", "c", **options)[1] == [*ran, "c"]


@pytest.mark.parametrize("options", [{"jobs": 1, "apart": True}, {"jobs": 2}], ids=["apart", "two"])
def test_one_that_kills_its_process_is_given_up_and_the_others_run(tmp_path, options):
    failed, _ = run(tmp_path, "a", "dies", "b", "raises", **options)
    assert failed["dies"] == spread.DIED
    assert set(failed) == {"dies", "raises"}
    assert [(tmp_path / name).read_text() for name in "ab"] == ["a", "b"]


def test_an_interrupted_run_goes_on_with_the_rest(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "a", "interrupted", "b")
    assert run(tmp_path, "a", "b") == ({}, ["a", "interrupted", "b"])


def test_code_that_a_file_builds_on(tmp_path):
    path = tmp_path / "models/org/model/n300/functional/model.py"
    beside = tmp_path / "models/org/model/n150/functional/model.py"
    for file in (path, beside):
        file.parent.mkdir(parents=True)
        file.write_text("")
    before = spread.code(path)
    beside.write_text("# another")
    assert spread.code(path) != before


# A cluster: `make test-cluster`


@pytest.fixture
def cluster():
    """Two nodes of one core on this machine: (the cluster, the node that holds no driver)."""
    if not os.environ.get("BRINGUP_REQUIRE_RAY"):
        pytest.importorskip("ray", reason="Ray is not installed; `make test-cluster` installs it")
    import ray
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "object_store_memory": 80 << 20}
    found = Cluster(initialize_head=True, head_node_args=small | {"include_dashboard": False})
    second = found.add_node(**small)
    ray.init(address=found.address, log_to_driver=False, logging_level="error")
    yield found, second
    ray.shutdown()
    found.shutdown()


def noted(write_point, common, point, path):
    """A sweep's point, which notes where it ran."""
    import ray

    with (path.parents[1] / "ran").open("a") as ran:
        ran.write(f"{ray.get_runtime_context().get_node_id()} {path.name}\n")
    write_point(common, point, path)


@pytest.mark.slow
def test_a_sweep_that_loses_a_node(cluster, tmp_path, monkeypatch):
    """A real sweep of a tiny checkpoint: only what the lost node was at runs twice, and a second sweep runs nothing."""
    nodes, second = cluster
    monkeypatch.setattr(sweep, "write_point", functools.partial(noted, sweep.write_point))
    out, killed = tmp_path / "out", []

    def ran():
        return [line.split() for line in (out / "ran").read_text().splitlines()] if (out / "ran").is_file() else []

    def done():
        return {path.name for path in (out / "points").glob("*.json")}

    def kill():
        while not killed and not stop.is_set():
            there = {name for node, name in ran() if node == second.node_id}
            if done() and there - done():
                nodes.remove_node(second, allow_graceful=False)
                killed.extend(there)
            time.sleep(0.02)

    stop = threading.Event()
    killer = threading.Thread(target=kill)
    killer.start()
    words = ("--mlp", "bf16,bfp8,bfp4", "--fidelity", "HiFi2,HiFi4", "--engine", "ray")
    try:
        rows = test_sweep.run(tmp_path, *words)
    finally:
        stop.set()
        killer.join()
    assert killed, "the sweep was over before a node could be killed"
    assert len(rows) == 6
    assert all("accuracy" in row for row in rows), rows
    times = Counter(name for _, name in ran())
    assert len(times) == 6
    again = {name for name, n in times.items() if n > 1}
    assert len(again) == 1, "what the lost node was at, and nothing else"
    assert again <= set(killed)
    before = len(ran())
    assert test_sweep.run(tmp_path, *words) == rows
    assert len(ran()) == before, "nothing is left to do"


@pytest.mark.slow
def test_tasks_that_fail_on_a_cluster_lose_no_other(cluster, tmp_path):
    failed, _ = run(tmp_path, "a", "dies", "raises", "b", engine="ray")
    assert failed["dies"].startswith(spread.DIED)
    assert set(failed) == {"dies", "raises"}
    assert [(tmp_path / name).read_text() for name in "ab"] == ["a", "b"]
    again, ran = run(tmp_path, "a", "b", "c", engine="ray", jobs=1)
    assert not again
    assert Counter(ran) == {"a": 1, "b": 1, "c": 1, "raises": 1, "dies": 1 + spread.RETRIES}


def test_without_ray_the_engine_is_refused(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(BadInput, match=r"ttnn-bringup\[cluster\]"):
        spread.run(write, {Path("nowhere"): ("a",)}, engine="ray")
