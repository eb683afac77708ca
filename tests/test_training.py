"""Training: killed and resumed, shared by two processes, stopped by a bad loss."""

import os
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from ps_nb.core import UserError, load_tensors, torch_generator
from ps_nb.data.loading import Augmentation, InputSize
from ps_nb.data.scenes import Scene
from ps_nb.detector.settings import DetectorSettings, Sampled
from ps_nb.devices import available_cores
from ps_nb.losses.matching import online_instance_matching
from ps_nb.training.identities import IdentityObjective, Matching
from ps_nb.training.loop import (
    CheckpointKeeper,
    Schedule,
    Values,
    check_finite,
    descend,
    load_checkpoint,
    save_checkpoint,
    train,
    train_epochs,
    working_precision,
)
from ps_nb.training.part_matching import PartMatching, PartObjective
from ps_nb.training.starting_weights import ObjectTraining, object_weights

PROGRAM = Path(__file__).parent / "tiny_training.py"
VARIABLES = {"PYTHONPATH": str(PROGRAM.parent.parent), "OMP_NUM_THREADS": "1"}


def start(folder, *arguments, launcher=(), objective="matching"):
    command = [sys.executable, *launcher, str(PROGRAM), str(folder), *arguments]
    environment = os.environ | VARIABLES | {"TINY_OBJECTIVE": objective}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    done = start(folder)
    assert done.returncode == 0, done.stderr[-6000:]
    return torch.load(folder / "result.pt")


def same(one, other):
    for part in ("searcher", "objective"):
        for name, value in one[part].items():
            torch.testing.assert_close(value, other[part][name], rtol=0, atol=0, msg=f"{part} {name}")


def as_one(whole, shared):
    "Two processes add in another order, and training magnifies rounding: what differs is little beside what was learned."
    def flat(state):
        return torch.cat([value.flatten().double() for value in state.values() if value.is_floating_point()])

    learned = (flat(whole["searcher"]) - flat(whole["start"])).norm()
    assert (flat(whole["searcher"]) - flat(shared["searcher"])).norm() < 0.05 * learned
    assert (flat(whole["objective"]) - flat(shared["objective"])).norm() < 0.05 * flat(whole["objective"]).norm()


def test_killed_runs_end_with_the_same_weights(uninterrupted, tmp_path):
    for moment in (("kill-at-step", "2"), ("kill-in-save", "2"), ("kill-at-step", "2")):
        assert start(tmp_path, *moment).returncode == -signal.SIGKILL
        assert not (tmp_path / "result.pt").exists()
    done = start(tmp_path)
    assert done.returncode == 0, done.stderr[-6000:]
    resumed = torch.load(tmp_path / "result.pt")
    same(uninterrupted, resumed)
    assert resumed["log"] == uninterrupted["log"]


def test_a_full_gpu_says_what_to_lower_and_the_run_goes_on_later(uninterrupted, tmp_path):
    ended = start(tmp_path, "full-at-step", "4")
    assert ended.returncode == 1
    assert "lower the batch size of the schedule, now 4, or the size of the scenes, now 96×128" in ended.stderr
    resumed = finished(tmp_path)
    same(uninterrupted, resumed)
    assert resumed["log"] == uninterrupted["log"]


def test_a_full_gpu_between_epochs_says_what_to_lower(tmp_path):
    ended = start(tmp_path, "full-at-clustering", "1", objective="contexts")
    assert ended.returncode == 1
    assert "lower the batch size, now 4, or train on fewer scenes" in ended.stderr
    assert not (tmp_path / "result.pt").exists()


def test_two_processes_reach_the_memory_of_one(uninterrupted, tmp_path):
    done = start(tmp_path, launcher=("-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", free_port()))
    assert done.returncode == 0, done.stderr[-6000:]
    shared = torch.load(tmp_path / "result.pt")
    assert uninterrupted["objective"]["memory.table"].norm(dim=1).gt(0.99).sum() >= 4
    as_one(uninterrupted, shared)


def finished(folder, *arguments, **options):
    done = start(folder, *arguments, **options)
    assert done.returncode == 0, done.stderr[-6000:]
    return torch.load(folder / "result.pt")


def test_clusters_survive_a_kill_in_the_middle_of_an_epoch(tmp_path):
    whole = finished(tmp_path / "whole", objective="contexts")
    assert start(tmp_path / "cut", "kill-at-step", "4", objective="contexts").returncode == -signal.SIGKILL
    resumed = finished(tmp_path / "cut", objective="contexts")
    logs = [[{name: value for name, value in row.items() if "seconds" not in name} for row in each["log"]]
            for each in (whole, resumed)]
    assert logs[0] == logs[1] and all("clusters" in row for row in logs[0])
    for each in (whole, resumed):  # seconds differ
        each["objective"].pop("_extra_state")
    same(whole, resumed)


def test_two_processes_cluster_as_one(tmp_path):
    whole = finished(tmp_path / "one", objective="contrast")
    launcher = ("-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", free_port())
    shared = finished(tmp_path / "two", objective="contrast", launcher=launcher)
    assert torch.equal(whole["objective"]["memory.labels"], shared["objective"]["memory.labels"])
    for each in (whole, shared):
        each["objective"].pop("_extra_state")
    as_one(whole, shared)


def test_a_loss_that_is_not_finite_stops_the_run():
    with pytest.raises(UserError, match="the loss matching became nan in epoch 3"):
        check_finite({"matching": torch.tensor(float("nan"))}, "in epoch 3, batch 1")
    check_finite({"matching": torch.tensor(1.0)}, "nowhere")


def test_nobody_to_train_on(tmp_path):
    with pytest.raises(UserError, match="no person to train on"):
        train(torch.nn.Linear(1, 1), torch.nn.Linear(1, 1), [], Augmentation((InputSize(9, 9),)), Schedule(), tmp_path)


def test_a_checkpoint_of_another_schedule_is_refused(tmp_path):
    path, layer = tmp_path / "checkpoint.pt", torch.nn.Linear(1, 1)
    CheckpointKeeper(path, Schedule(epochs=3), searcher=layer).save({"epoch": 1})
    assert CheckpointKeeper(path, Schedule(epochs=3), searcher=layer).restore() == {"epoch": 1}
    with pytest.raises(UserError, match="another schedule"):
        CheckpointKeeper(path, Schedule(epochs=4), searcher=layer).restore()


def test_a_run_goes_on_where_weights_lie_differently(tmp_path):
    schedule = Schedule()

    def begun(layout):
        torch.manual_seed(0)
        network = torch.nn.Conv2d(3, 4, 3).to(memory_format=layout)
        optimiser = torch.optim.SGD(network.parameters(), lr=1.0, momentum=0.9, fused=True)
        keeper = CheckpointKeeper(tmp_path / "checkpoint.pt", schedule, searcher=network, optimiser=optimiser)
        return network, optimiser, keeper

    def step(network, optimiser):
        optimiser.zero_grad()
        network(torch.ones(1, 3, 5, 6).cumsum(dim=3)).square().mean().backward()
        optimiser.step()

    on_gpu, optimiser, keeper = begun(torch.channels_last)
    step(on_gpu, optimiser)
    keeper.save({"epoch": 0})
    on_cpu, its, other = begun(torch.contiguous_format)
    assert other.restore() == {"epoch": 0} and torch.equal(on_cpu.weight, on_gpu.weight)
    step(on_gpu, optimiser)
    step(on_cpu, its)
    assert torch.allclose(on_cpu.weight, on_gpu.weight, rtol=1e-4)


def test_a_checkpoint_of_other_parts_is_refused(tmp_path):
    keeper = CheckpointKeeper(tmp_path / "checkpoint.pt", Schedule(), searcher=torch.nn.Linear(2, 3))
    keeper.save({"epoch": 0})
    with pytest.raises(UserError, match="checkpoint.pt was made by another version: delete it to start again"):
        CheckpointKeeper(tmp_path / "checkpoint.pt", Schedule(), searcher=torch.nn.Conv2d(2, 3, 1)).restore()


class Killed(BaseException):
    "A process that ends at once: nothing of the program catches it."


def cut_off(monkeypatch, number, work):
    "What `work` returns when it is cut off right after the file number `number` that it writes, and started again; None if none."
    replace_file, written = os.replace, []

    def replaced(*arguments):
        replace_file(*arguments)
        written.append(arguments)
        if len(written) == number:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replaced)
        try:
            work()
            return None
        except Killed:
            pass
    return work()


def test_every_training_goes_on_at_its_last_finished_epoch(tmp_path):
    def learn(path, stop=None):
        torch.manual_seed(0)
        layer, values = torch.nn.Linear(3, 1), Values(seen=torch.zeros(0), best=float("inf"))
        optimiser = torch.optim.Adam(layer.parameters(), lr=0.1)

        def one_epoch(position):
            if position["epoch"] == stop:
                raise Killed
            given = torch.randn(8, 3, generator=torch_generator(0, "given", position["epoch"]))
            loss = layer(given).square().mean()
            descend(loss, optimiser, clip=0.1, clipped=layer)
            assert torch.nn.utils.get_total_norm([each.grad for each in layer.parameters()]) < 0.1001
            values.update(seen=torch.cat([values["seen"], loss.detach()[None]]), best=min(values["best"], float(loss)))
            return {"loss": float(loss)}

        keeper = CheckpointKeeper(path, "settings", layer=layer, optimiser=optimiser, values=values)
        return train_epochs(4, one_epoch, keeper, "toy: "), layer.weight.tolist(), values["seen"].tolist(), values["best"]

    whole = learn(None)  # keeps nothing
    assert [row["epoch"] for row in whole[0]] == [0, 1, 2, 3] and len(whole[2]) == 4
    for stop in (0, 1, 3):
        with pytest.raises(Killed):
            learn(tmp_path / f"{stop}.pt", stop)
        assert learn(tmp_path / f"{stop}.pt") == whole


def test_starting_weights_are_the_same_whenever_their_training_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)  # bfloat16 is tried where it is there
    settings = ObjectTraining(classes=2, renders=4, height=32, width=24, epochs=2, batch_size=4)
    whole = load_tensors(object_weights(settings, tmp_path / "whole", "cpu"))
    for number in (2, 3, 4, 6):  # first checkpoint, checksum of the second, second checkpoint, weights
        path = cut_off(monkeypatch, number, partial(object_weights, settings, tmp_path / str(number), "cpu"))
        resumed = load_tensors(path)
        assert all(torch.equal(value, resumed[name]) for name, value in whole.items()), number
        assert not list((tmp_path / str(number)).rglob("checkpoint*"))


def test_a_probe_of_the_precision_moves_nothing(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    working_precision(network, torch.device("cpu"), "auto", lambda: network(torch.ones(2, 3, 8, 8)))
    assert network.training and all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_flipped_bit_of_any_byte_of_a_checkpoint_is_seen(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"epoch": 1, "weights": torch.ones(3)})
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(UserError, match="checkpoint.pt is damaged"):
            load_checkpoint(path)
    path.write_bytes(content)
    assert load_checkpoint(path)["epoch"] == 1
    (tmp_path / "checkpoint.pt.sha256").unlink()  # as earlier versions wrote it
    assert load_checkpoint(path)["epoch"] == 1


def test_a_checkpoint_killed_between_file_and_checksum_is_whole(tmp_path, monkeypatch):
    path, replace_file = tmp_path / "checkpoint.pt", os.replace
    save_checkpoint(path, {"epoch": 1})

    def replaced(source, target):
        if Path(target) == path:
            raise Killed
        replace_file(source, target)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(os, "replace", replaced)
        save_checkpoint(path, {"epoch": 2})
    assert load_checkpoint(path) == {"epoch": 1}


def test_a_full_disk_is_one_line(tmp_path):
    program = ("import resource, sys, torch; from pathlib import Path; from ps_nb.core import UserError, save_tensors\n"
               "from ps_nb.training.loop import save_checkpoint\n"
               "resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000))\n"
               "for save in (save_checkpoint, save_tensors):\n"
               "    try:\n        save(Path(sys.argv[1]) / 'weights', {'weight': torch.zeros(10000)})\n"
               "    except UserError as error:\n        print(error)\n")
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, env=os.environ | VARIABLES, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("cannot write") == 2 and len(done.stdout.splitlines()) == 2
    assert [each.name for each in tmp_path.iterdir()] == ["weights.sha256"]


@pytest.mark.parametrize("state", [[], {}, {"schedule": None}, {"schedule": repr(Schedule()), "searcher": [], "position": {}},
                                   {"schedule": repr(Schedule()), "searcher": None, "position": {}}])
def test_a_checkpoint_of_another_shape_is_one_line(tmp_path, state):
    save_checkpoint(tmp_path / "checkpoint.pt", state)
    with pytest.raises(UserError, match="checkpoint"):
        CheckpointKeeper(tmp_path / "checkpoint.pt", Schedule(), searcher=torch.nn.Linear(1, 1)).restore()


def test_cores_are_those_of_the_container(tmp_path):
    quota = tmp_path / "cpu.max"
    everything = available_cores(quota)
    assert everything == len(os.sched_getaffinity(0))
    for text, cores in (("max 100000\n", everything), ("50000 100000\n", 1), ("100000 100000", 1), ("", everything)):
        quota.write_text(text)
        assert available_cores(quota) == cores


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 9999), st.integers(1, 6), st.integers(0, 5), st.integers(0, 5000), st.sampled_from([1.0, 10.0, 30.0]))
def test_empty_places_add_one_each_where_they_are_counted(seed, classes, written, empty, scale):
    draw = torch.Generator().manual_seed(seed)
    features, rows = (functional.normalize(torch.randn(count, 8, generator=draw, dtype=torch.float64), dim=1)
                      for count in (4, classes + written))
    rows[:classes] *= torch.randint(2, (classes, 1), generator=draw)  # not seen yet: zero vectors, and classes
    targets = torch.randint(-1, classes, (4,), generator=draw)
    targets[0] = 0
    queue = torch.cat([rows[classes:], torch.zeros(empty, 8, dtype=torch.float64)])
    for reading, more in (("left_out", 0), ("counted", empty)):
        x = features.clone().requires_grad_()
        loss = online_instance_matching(x, targets, rows[:classes], queue, scale, reading)
        loss.backward()
        weight = (scale * features @ rows.T).exp()
        total, known, right = weight.sum(dim=1) + more, targets >= 0, rows[targets.clamp(min=0)]
        losses = total.log() - scale * (features * right).sum(dim=1)
        pulls = scale * (weight @ rows / total[:, None] - right) * known[:, None] / known.sum()
        torch.testing.assert_close(loss.detach(), losses[known].mean())
        torch.testing.assert_close(x.grad, pulls)


def test_objectives_take_the_reading_of_empty_places():
    scenes = [Scene("a", Path("a"), 9, 9, [[0, 0, 4, 8], [1, 0, 4, 8]], [0, 1])]
    one, two, detector = torch.tensor([0, 0]), torch.tensor([0, 1]), DetectorSettings(feature_size=4)
    for reading, count in (("left_out", 2), ("counted", 2 + 7)):  # nothing was seen: every class and every place alike
        own = dict(queue_size=7, empty_places=reading)
        sampled = Sampled(torch.eye(2, 4), one, two, attention=lambda first, second: torch.ones(first.shape[:-1]))
        matching = IdentityObjective(scenes, detector, Matching(**own))(sampled)["matching"]
        parts = PartObjective(scenes, detector, PartMatching(**own))(sampled)["matching_0"]
        assert torch.isclose(matching, torch.tensor(float(count)).log()) and torch.isclose(parts, matching)
    with pytest.raises(UserError, match="choose left_out or counted"):
        IdentityObjective(scenes, detector, Matching(empty_places="zeros"))(sampled)
