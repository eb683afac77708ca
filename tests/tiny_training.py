"""A training run of seconds, as a program: tests start it, kill it, and start it on two processes.

usage: tiny_training.py FOLDER [kill-at-step N | kill-in-save N | full-at-step N | full-at-clustering N]

The environment variable TINY_OBJECTIVE chooses what is trained: matching (the default), contexts, or contrast, which is
contexts without the loss that compares the regions of one process only.
"""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ps_nb.core import seed_everything
from ps_nb.data.loading import Augmentation, InputSize
from ps_nb.data.scenes import Scene
from ps_nb.detector.searcher import PersonSearcher
from ps_nb.detector.settings import DetectorSettings
from ps_nb.devices import process_sum, several_processes
from ps_nb.training import loop
from ps_nb.training.contexts import ContextObjective, Contexts
from ps_nb.training.identities import IdentityObjective, Matching

SETTINGS = DetectorSettings(backbone="resnet18", anchor_sizes=(38.0,), anchor_ratios=(2.5,), train_candidates=48,
                            train_proposals=16, region_samples=8, region_size=(8, 4), anchor_samples=16, feature_size=16,
                            batch_statistics=True)


def write_scenes(folder):
    draw = np.random.default_rng(0)
    scenes = []
    for i in range(8):
        picture = draw.integers(0, 60, (96, 128, 3), dtype=np.uint8)
        people = [(8 + 4 * i, i % 3), (70, 3 + i % 2)][: 1 + i % 2]
        for x, person in people:
            picture[20:80, x : x + 24] = (60 * person, 250 - 60 * person, 120)
        path = folder / f"s{i}.png"
        if not path.exists():
            Image.fromarray(picture).save(path)
        ids = [-1 if i == 5 else person for _, person in people]
        scenes.append(Scene(path.name, path, 128, 96, [[x, 20, x + 24, 80] for x, _ in people], ids))
    return scenes


def main(folder, moment=None, number=None):
    torch.set_num_threads(1)
    first = int(os.environ.get("RANK", "0")) == 0
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    scenes = write_scenes(folder)
    loop.SAVE_EVERY = 0.0
    count = 0

    def fail():
        if moment.startswith("full"):
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        os.kill(os.getpid(), signal.SIGKILL)

    def fail_at(function):
        def counted(*arguments, **options):
            nonlocal count
            count += 1
            if count == int(number):
                fail()
            return function(*arguments, **options)
        return counted

    if moment in ("kill-at-step", "full-at-step"):
        torch.optim.SGD.step = fail_at(torch.optim.SGD.step)
    elif moment == "full-at-clustering":
        ContextObjective.begin_epoch = fail_at(ContextObjective.begin_epoch)
    elif moment == "kill-in-save":
        os.replace = fail_at(os.replace)
    seed_everything(0)
    searcher = PersonSearcher(SETTINGS)
    contexts = Contexts(k1=4, k2=2, min_samples=2)
    contrast = replace(contexts, instance_weight=0.0, background_weight=0.0)
    objective = {
        "matching": lambda: IdentityObjective(scenes, SETTINGS, Matching(queue_size=6)),
        "contexts": lambda: ContextObjective(scenes, SETTINGS, contexts),
        "contrast": lambda: ContextObjective(scenes, SETTINGS, contrast),
    }[os.environ.get("TINY_OBJECTIVE", "matching")]()
    schedule = loop.Schedule(epochs=3, batch_size=4, learning_rate=0.01, warm_up_steps=2, milestones=(2,))
    start = {name: value.clone() for name, value in searcher.state_dict().items()}
    log = loop.train(searcher, objective, scenes, Augmentation((InputSize(96, 128),)), schedule, folder, device="cpu",
                         precision="no")
    if several_processes():
        own = torch.tensor([torch.distributed.get_rank() + 1.0], requires_grad=True)  # 1 and 2
        (process_sum(own) * own.detach()).sum().backward()
        assert process_sum(own) == 3 and own.grad == 3  # each is part of the sums of both, which weigh 1 and 2
    if first:
        result = {"start": start, "searcher": searcher.state_dict(), "objective": objective.state_dict(), "log": log}
        torch.save(result, folder / "result.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
