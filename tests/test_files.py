"""Files, folders and locks as the machines of users treat them."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from itertools import takewhile
from pathlib import Path

import pytest

from ps_nb.core import UNFINISHED, UserError, locked, map_in_processes, read_json, remove_unfinished, write_json, write_text

ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
WRITER = """
import sys, time
from ps_nb.core import atomic_path
with atomic_path(sys.argv[1]) as temporary:
    temporary.write_bytes(bytes(1000))
    print("half", flush=True)
    time.sleep(60)
"""


def writer(path):
    "A process in the middle of writing `path`."
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "half\n"
    return process


def temporaries(folder):
    return sorted(folder.rglob(f"{UNFINISHED}*"))


def test_what_a_kill_leaves_goes_with_the_next_lock(tmp_path):
    killed, living = writer(tmp_path / "runs" / "deep" / "checkpoint.pt"), writer(tmp_path / "runs" / "weights.safetensors")
    try:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        (tmp_path / UNFINISHED).write_bytes(b"of a folder that is not locked")
        assert len(temporaries(tmp_path / "runs")) == 2
        with locked(tmp_path / "runs"):
            (left,) = temporaries(tmp_path / "runs")
            assert left.suffix == ".safetensors"  # of the living writer
        living.send_signal(signal.SIGKILL)
    finally:
        killed.kill()
        living.kill()
        living.wait()
    with locked(tmp_path / "runs"):
        assert not temporaries(tmp_path / "runs") and temporaries(tmp_path)
    remove_unfinished(tmp_path, nested=False)
    assert not temporaries(tmp_path)


def test_a_temporary_file_that_is_deleted_before_it_is_held_is_made_again(tmp_path, monkeypatch):
    lock, calls = fcntl.flock, []

    def late(handle, how):
        calls.append(how)
        if len(calls) == 1:
            remove_unfinished(tmp_path)  # another process is faster
        return lock(handle, how)

    monkeypatch.setattr(fcntl, "flock", late)
    write_text(tmp_path / "file", "whole")
    assert (tmp_path / "file").read_text() == "whole" and not temporaries(tmp_path) and len(calls) == 3


@pytest.mark.parametrize("name", ["a b 'c' \"d\"\n*?[x]", "é" * 120, ".hidden", "-n", "x" * 255, "." + "y" * 250, "caf\udce9"])
def test_names_of_every_kind_are_written(tmp_path, name):
    folder = tmp_path / name
    with locked(folder):
        write_json(folder / name, [1])
    assert read_json(folder / name) == [1] and sorted(os.listdir(folder)) == sorted([".lock", name])


def test_a_name_that_is_too_long_and_a_folder_in_the_place_are_one_line(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "circle").symlink_to("circle")
    for path in (tmp_path / ("x" * 256), tmp_path / "folder", tmp_path / "circle" / "file"):
        with pytest.raises(UserError, match="cannot write"):
            write_text(path, "text")
    with pytest.raises(UserError, match="cannot use folder"):
        with locked(tmp_path / ("x" * 256)):
            pass
    assert not temporaries(tmp_path)


def test_a_linked_folder_and_a_linked_file(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "runs").symlink_to("disk")
    with locked(tmp_path / "runs"):
        write_text(tmp_path / "runs" / "file", "text")
        (tmp_path / "disk" / f"{UNFINISHED}x").write_text("left")
    with locked(tmp_path / "runs"):
        assert not temporaries(tmp_path / "disk")
    (tmp_path / "link").symlink_to("nowhere")
    write_text(tmp_path / "link", "text")  # takes the link's place
    assert (tmp_path / "link").read_text() == (tmp_path / "disk" / "file").read_text() == "text"


@pytest.mark.parametrize("mask, mode", [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_have_the_permissions_that_the_user_gives_new_files(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        with locked(tmp_path):
            write_text(tmp_path / "file", "text")
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("file", ".lock")] == [mode, mode]


def test_a_file_system_without_locks_is_one_line(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refused)
    write_text(tmp_path / "file", "text")  # needs none
    (tmp_path / f"{UNFINISHED}x").write_text("perhaps of a living process")
    with pytest.raises(UserError, match="cannot lock folder .*: No locks available; choose a folder on a local disk"):
        with locked(tmp_path):
            pass
    remove_unfinished(tmp_path)
    assert temporaries(tmp_path)


AS_NOBODY = """
import os, sys
import numpy, tqdm.auto
from ps_nb.core import UserError, locked, read_json, remove_checked, write_text
if os.getuid() == 0:
    os.setgid(65534), os.setuid(65534)
for folder in sys.argv[1:]:
    try:
        with locked(folder):
            write_text(folder + "/file", "text")
        print("written")
    except UserError as error:
        print(error)
"""


def test_a_folder_of_two_users_and_one_that_can_only_be_read(tmp_path):
    for name, mode in (("shared", 0o777), ("read only", 0o555)):
        with locked(tmp_path / name):  # by this user; the file .lock is not for others to write
            write_text(tmp_path / name / "file", "text")
        (tmp_path / name).chmod(mode)
    for closed in takewhile(lambda path: not path.stat().st_mode & 0o001, (tmp_path, *tmp_path.parents)):
        closed.chmod(0o711)
    command = [sys.executable, "-c", AS_NOBODY, str(tmp_path / "shared"), str(tmp_path / "read only")]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    first, second = done.stdout.splitlines()
    assert first == "written" and second.startswith("cannot use folder") and "read only: Permission denied" in second, done.stderr


def test_a_clock_that_was_set_back_changes_nothing(tmp_path):
    write_text(tmp_path / "file", "of tomorrow")
    os.utime(tmp_path / "file", (time.time() + 1e6,) * 2)
    with locked(tmp_path):
        write_text(tmp_path / "file", "of today")
    assert (tmp_path / "file").read_text() == "of today" and (tmp_path / "file").stat().st_mtime < time.time() + 1e3


def test_processes_answer_in_order_and_their_errors_are_one_line(tmp_path):
    assert list(map_in_processes(eval, ["1 + 1", "2 + 2", "5 + 5"], 2)) == [2, 4, 10]
    with pytest.raises(UserError, match="no such file"):
        list(map_in_processes(read_json, [tmp_path / "absent.json"], 1))
    with pytest.raises(UserError, match="ended with code 9 .*fewer workers"):
        list(map_in_processes(eval, ["1", "__import__('os')._exit(9)", "2"], 1))


def test_processes_end_with_the_one_that_started_them():
    program = ("import os\nfrom ps_nb.core import map_in_processes\nnumber = '__import__(\"os\").getpid()'\n"
               "print(*map_in_processes(eval, [number] * 3, 1))\n"
               "for _ in map_in_processes(eval, [f'print({number})', '__import__(\"time\").sleep(.5)'], 1):\n"
               "    os.kill(os.getpid(), 9)\n")
    done = subprocess.run([sys.executable, "-c", program], env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    (first,), second = set(done.stdout.split()), int(done.stderr.split()[0])  # what is printed goes to standard error
    assert not Path(f"/proc/{first}").exists()
    until = time.monotonic() + 10
    while alive(second) and time.monotonic() < until:
        time.sleep(0.05)
    assert not alive(second)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_drawing_processes_import_no_torch():
    program = ("import sys; from ps_nb.twin.pictures import draw_batch\n"
               "assert not {'torch', 'pandas', 'scipy', 'matplotlib', 'ps_nb.data'} & set(sys.modules), sorted(sys.modules)")
    done = subprocess.run([sys.executable, "-c", program], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
