"""papermill's traps: each notebook here falls into one, and `reproduce` must say so."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from ps_nb.core import UserError, read_json, write_json
from ps_nb.reproduction import many_runs, results
from ps_nb.reproduction.many_runs import reproduce
from ps_nb.reproduction.notebooks import (
    experiment_notebooks,
    notebook_parameters,
    result_difference,
    settled_parameters,
)

KERNEL = {"kernelspec": {"name": "python3", "language": "python", "display_name": "python3"}}
PARAMETERS = 'profile = "smoke"  # how large\nseeds = "0"  # random seeds, comma separated\nsize = 3  # rows'
# what an experiment does, without the seconds that importing torch takes
QUICK = """
import json, os, pathlib
path = pathlib.Path(os.environ["PS_NB_RESULTS"]) / profile / "e2e" / "{name}.json"
path.parent.mkdir(parents=True, exist_ok=True)
recorded = {{"profile": profile, "seeds": [int(part) for part in seeds.split(",")], "size": {size}}}
path.write_text(json.dumps({{"parameters": recorded}}))
"""


def eventually(true, seconds=120):
    "Whether `true()` is so within `seconds`."
    end = time.monotonic() + seconds
    while not (found := true()) and time.monotonic() < end:
        time.sleep(0.1)
    return bool(found)


def notebook(path, *cells, tags=("parameters",)):
    book = nbformat.v4.new_notebook(metadata=KERNEL, cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    book.cells[0].metadata["tags"] = list(tags)
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(book, path)
    return path


@pytest.fixture
def clone(tmp_path, monkeypatch):
    "A repository without experiments, which we are in."
    published = results.repository() / "results" / "published"
    shutil.copytree(published, tmp_path / "results" / "published")
    (tmp_path / "nbs").mkdir()
    (tmp_path / "nbs" / "00_ground").mkdir(parents=True, exist_ok=True)
    (tmp_path / "nbs" / "00_ground" / "01_core.ipynb").touch()
    (tmp_path / "settings.ini").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PS_NB_RESULTS", raising=False)
    monkeypatch.delenv("PS_NB_RUNS", raising=False)
    return tmp_path


def experiment(clone, name, *cells, **options):
    return notebook(clone / "nbs" / "experiments" / "e2e" / f"{name}.ipynb", PARAMETERS, *cells, **options)


def test_an_experiment_from_parameters_to_result(clone, monkeypatch, capsys):
    experiment(
        clone, "fig3_subsets",
        "from ps_nb.reproduction.results import check_parameters, over_seeds, write_result\n"
        "parameters = check_parameters(globals(), size=int)",
        "rows = [{'subset': str(i), 'seed': s, 'queries': i + s} for s in parameters.seeds for i in range(parameters.size)]\n"
        "write_result('e2e', 'fig3_subsets', parameters, over_seeds(rows, ['subset']))",
    )
    monkeypatch.setenv("PYTHONPATH", "relative")  # the kernel works elsewhere and must find ps_nb all the same
    assert reproduce("e2e", parameters={"seeds": "0, 2", "size": "2"}) == {}
    result = read_json(clone / "results" / "smoke" / "e2e" / "fig3_subsets.json")
    assert result["parameters"] == {"profile": "smoke", "seeds": [0, 2], "size": 2}
    assert [row["queries"] for row in result["rows"]] == [1, 2] and result["seconds"] > 0
    assert (clone / "runs" / "executed" / "smoke" / "e2e" / "fig3_subsets.ipynb").is_file()
    assert "fig3_subsets: done" in capsys.readouterr().out

    assert reproduce("e2e", parameters={"seeds": "0,2", "size": 2}, missing=True) == {}
    assert "there already" in capsys.readouterr().out
    assert reproduce("e2e", parameters={"seeds": "0,2", "size": 2}, missing=True, cluster="nowhere:1") == {}  # asks no cluster
    failures = reproduce("e2e", ["fig3_subsets"], profile="smal")  # what the notebook refuses in its second cell
    assert "choose one of smoke, small, medium, full, paper" in failures["fig3_subsets"]


def test_code_that_is_not_committed_is_said_before_any_training(clone, capsys):
    def git(*words):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True, capture_output=True)

    experiment(clone, "fig3_subsets", QUICK.format(name="fig3_subsets", size="size"))
    (clone / ".gitignore").write_text("runs/\n")
    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "first")
    assert reproduce("e2e", profile="small") == {}
    assert "commit" not in capsys.readouterr().out  # neither is the result that was just written a change of the code
    (clone / "settings.ini").write_text("changed")
    (clone / "queue.sh").touch()
    assert reproduce("e2e", profile="small") == {}
    assert capsys.readouterr().out.splitlines()[0].endswith("commit or remove settings.ini and 1 more")
    assert reproduce("e2e", profile="small", missing=True) == {} and reproduce("e2e", profile="smoke") == {}
    assert "commit" not in capsys.readouterr().out


def test_failures_are_seen_and_do_not_stop_the_others(clone, capsys):
    experiment(clone, "tab1_statistics", "import os; os._exit(0)")
    experiment(clone, "fig2_heights", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    experiment(clone, "fig3_subsets", "print('no last cell, no result')")
    experiment(clone, "fig6_training", QUICK.format(name="fig6_training", size="99"))
    shares = "assert os.environ['PS_NB_RUNS'] == str(pathlib.Path('../../../runs').resolve())"  # one folder for all experiments
    experiment(clone, "tab3_subsets", QUICK.format(name="tab3_subsets", size="size") + shares)
    old = clone / "results" / "smoke" / "e2e" / "fig3_subsets.json"
    write_json(old, {"parameters": {"profile": "smoke", "seeds": [0], "size": 3}})
    failures = reproduce("e2e")
    assert list(failures) == ["tab1_statistics", "fig2_heights", "fig3_subsets", "fig6_training"]
    assert "died" in failures["tab1_statistics"] and "died" in failures["fig2_heights"]
    assert "without writing its result file again" in failures["fig3_subsets"]
    assert "another size" in failures["fig6_training"]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6 and "1 of 5" in lines[-1]


def test_a_command_that_is_killed_takes_its_notebook_with_it(clone):
    kernel = clone / "kernel"
    experiment(clone, "fig3_subsets", f"import os, time; open({str(kernel)!r}, 'x').write(str(os.getpid())); time.sleep(600)")
    words = "from ps_nb.start import start_command; start_command()"
    command = subprocess.Popen([sys.executable, "-c", words, "reproduce", "e2e"], stderr=subprocess.PIPE, text=True)
    assert eventually(lambda: kernel.exists() and kernel.read_text())
    command.terminate()
    assert "goes on where this one stopped" in command.communicate(timeout=240)[1] and command.returncode == 130
    assert eventually(lambda: not Path("/proc", kernel.read_text(), "exe").exists())


# runs in miniature, as the library makes them: one fails, and one is killed once, after its first checkpoint
TRAINING = """
import os, pathlib, signal
import torch
from ps_nb.core import UserError
from ps_nb.training.loop import save_checkpoint
from ps_nb.training.once import made_once


def trained(name):
    folder = pathlib.Path(os.environ["PS_NB_RUNS"]) / f"toy-{name}"

    def make():
        if name == "bad":
            raise UserError("the loss became nan")
        if name == "killed" and not (folder / "checkpoint.pt").exists():
            save_checkpoint(folder / "checkpoint.pt", {"seconds": 1000.0})
            os.kill(os.getpid(), signal.SIGKILL)
        return {"weight": torch.ones(1)}, {"resumed": (folder / "checkpoint.pt").exists()}

    work = {"recipe": "toy", "backbone": "none", "pixels": 1, "images": 10, "epochs": 1}
    return made_once(folder / "weight.safetensors", {"name": name}, make, lambda facts: facts, f"training {name}", work=work,
                     stand_in=lambda facts: facts)
"""


def test_runs_come_first_and_side_by_side(clone, capsys):
    "What two experiments need is made once, by two processes at a time; one that is killed is found again."
    write = QUICK.format(name="fig2_heights", size="size")
    experiment(clone, "fig2_heights", TRAINING, "facts = [trained(name) for name in ('good', 'killed')]",
               "assert [(each['resumed'], each['seconds'] >= 1000) for each in facts] == [(False,) * 2, (True,) * 2]\n" + write)
    experiment(clone, "fig6_training", TRAINING, "trained('good')", "trained('bad')")
    assert reproduce("e2e", jobs=2, dry_run=True) == {} and not list((clone / "runs").glob("toy-*"))
    out = capsys.readouterr().out
    assert "training good: no run like it was made yet; for e2e/fig2_heights, e2e/fig6_training\n" in out
    assert "3 runs to be trained, 2 at a time\n" in out

    failures = reproduce("e2e", jobs=2)
    out = capsys.readouterr().out
    assert set(failures) == {"fig2_heights", "fig6_training"} and "killed by signal 9" in failures["fig2_heights"]
    assert failures["fig6_training"] == "toy-bad was not trained: UserError: the loss became nan"
    assert out.count("toy-good: trained in") == 1 and not (clone / "runs" / "executed" / "smoke").exists()
    assert not (clone / "results" / "smoke").exists()  # what the experiments wrote while their runs were collected is gone

    assert reproduce("e2e", ["fig2_heights"], jobs=2) == {}
    out = capsys.readouterr().out
    assert "training killed: about" in out and "good" not in out  # the one that is there tells what the other will take
    assert read_json(clone / "runs" / "toy-killed" / "run.json")["resumed"]
    assert not list((clone / "runs").glob("wanted-*"))


def test_more_jobs_than_memory_allows_are_refused(clone, monkeypatch):
    "The first run tells, and says no before the others start."
    made = []

    def run(job):
        made.append(job.name)
        write_json(job.facts, {"work": job.work, "seconds": 1.0, "peak_memory_mb": 1e9, "peak_gpu_memory_mb": 0.0})
        return None, 1.0

    monkeypatch.setattr(many_runs, "run_job", run)
    work = {"recipe": "toy", "backbone": "none", "pixels": 1, "images": 10, "epochs": 1}
    jobs = [many_runs.Job("", str(clone / "runs" / name / "run.json"), name, work, ()) for name in "abc"]
    with pytest.raises(UserError, match="^--jobs 2: 2 runs of 1,000,000,000 MB each do not fit into the .* MB of memory that"):
        many_runs.train_jobs(jobs, 2, None)
    assert made == ["a"]
    assert many_runs.train_jobs(jobs[1:], 1, None) == {} and made == ["a", "b", "c"]  # one at a time is nobody's question


def test_memory_that_is_free(tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    4096 kB\n")
    assert many_runs.free_memory_mb(tmp_path / "meminfo", tmp_path) == 4
    (tmp_path / "memory.max").write_text(f"{3 * 2**20}\n")
    (tmp_path / "memory.current").write_text(f"{2 * 2**20}\n")
    (tmp_path / "memory.stat").write_text(f"anon 7\ninactive_file {2**20}\n")
    assert many_runs.free_memory_mb(tmp_path / "meminfo", tmp_path) == 2
    (tmp_path / "memory.max").write_text("max\n")
    assert many_runs.free_memory_mb(tmp_path / "meminfo", tmp_path) == 4


# an experiment that takes its machine down, once: Ray's daemon above its kernel, and everything in between
LOSES_ITS_MACHINE = """
import os, pathlib, signal
mark = pathlib.Path(os.environ["PS_NB_RUNS"]) / "lost"
if not mark.exists():
    mark.touch()
    machine = [os.getpid()]
    while "raylet" not in pathlib.Path(f"/proc/{machine[0]}/cmdline").read_text():
        above = pathlib.Path(f"/proc/{machine[0]}/stat").read_text().rsplit(")", 1)[1].split()[1]
        machine.insert(0, int(above))
    for pid in machine:
        os.kill(pid, signal.SIGKILL)
"""


def test_a_cluster_runs_experiments_and_a_lost_machine_loses_none(clone, capsys):
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    experiment(clone, "tab1_statistics", LOSES_ITS_MACHINE, QUICK.format(name="tab1_statistics", size="size"))
    for name in ("fig2_heights", "fig6_training"):
        experiment(clone, name, QUICK.format(name=name, size="size"))
    experiment(clone, "fig3_subsets", "raise ValueError('a failure is no loss')")
    machines = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(2):
        machines.add_node(num_cpus=1)
    try:
        failures = reproduce("e2e", cluster=machines.address)
    finally:
        machines.shutdown()
    assert list(failures) == ["fig3_subsets"] and "a failure is no loss" in failures["fig3_subsets"]
    assert (clone / "runs" / "lost").is_file()
    for name in ("tab1_statistics", "fig2_heights", "fig6_training"):
        assert read_json(clone / "results" / "smoke" / "e2e" / f"{name}.json")["parameters"]["size"] == 3
    assert "3 of 4" in capsys.readouterr().out.splitlines()[-1]


def test_a_cluster_that_is_not_there_is_one_line(clone):
    pytest.importorskip("ray")
    experiment(clone, "tab1_statistics", "raise AssertionError('must not run')")
    with pytest.raises(UserError, match="no Ray cluster at auto .*start one with ray start"):
        reproduce("e2e", cluster="auto")


def test_a_cluster_without_ray_says_what_to_install(clone, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    experiment(clone, "tab1_statistics", "raise AssertionError('must not run')")
    with pytest.raises(UserError, match=r"pip install 'ps_nb\[cluster\]'"):
        reproduce("e2e", cluster="local")


def test_parameters_are_compared_before_any_work(clone):
    first = experiment(clone, "tab1_statistics", "raise AssertionError('must not run')")
    with pytest.raises(UserError, match="no parameter gallery: it has profile, seeds, size"):
        reproduce("e2e", parameters={"gallery": 5})
    with pytest.raises(UserError, match="must be int"):
        reproduce("e2e", parameters={"size": "many"})
    assert not (clone / "runs").exists()
    assert settled_parameters(first, {"seeds": 4})["seeds"] == "4"


@pytest.mark.parametrize("tags", [(), ("parameter",)])
def test_a_notebook_without_its_tag_is_refused(clone, tags):
    experiment(clone, "tab1_statistics", "raise AssertionError('must not run')", tags=tags)
    with pytest.raises(UserError, match="tag its first code cell 'parameters'"):
        reproduce("e2e")


def test_parameters_must_be_literals(tmp_path):
    path = notebook(tmp_path / "x.ipynb", 'profile = "smoke"\nseeds = "0"\nsize = max(3, 4)')
    with pytest.raises(UserError, match="plain numbers"):
        notebook_parameters(path)
    (tmp_path / "y.ipynb").write_text("not a notebook")
    with pytest.raises(UserError, match="cannot be read"):
        notebook_parameters(tmp_path / "y.ipynb")


def test_names_that_do_not_exist(clone):
    with pytest.raises(UserError, match="choose one of e2e"):
        reproduce("e3e")
    with pytest.raises(UserError, match="has no notebook for any"):
        reproduce("cgps")
    experiment(clone, "tab1_statistics")
    with pytest.raises(UserError, match="has no notebook for fig2_heights"):
        experiment_notebooks("e2e", ["tab1_statistics", "fig2_heights"])


def test_outside_a_clone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ps_nb.__file__", str(tmp_path / "site-packages" / "ps_nb" / "__init__.py"))
    with pytest.raises(UserError, match="clone it"):
        reproduce("e2e")


def test_a_result_that_is_not_one(tmp_path):
    assert "no result file" in result_difference(tmp_path / "absent.json", {})
    (tmp_path / "half.json").write_text('{"parameters": ')
    with pytest.raises(UserError, match="not valid JSON"):
        result_difference(tmp_path / "half.json", {"size": 3})
    write_json(tmp_path / "whole.json", {"parameters": {"size": 3}})
    assert result_difference(tmp_path / "whole.json", {"size": 3}) is None
    assert "another seeds" in result_difference(tmp_path / "whole.json", {"size": 3, "seeds": "0"})
