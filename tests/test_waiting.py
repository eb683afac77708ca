"""Every searcher computes on a device what it computes on the processor, mixes nothing with it, and seldom waits for it."""

import copy
import inspect
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pretended import DEVICE, PretendedDevice
from torchvision.ops import nms

from ps_nb import kernels
from ps_nb.core import seed_everything
from ps_nb.data.scenes import SearchSet
from ps_nb.detector.boxes import suppress
from ps_nb.detector.inference import embed_scenes
from ps_nb.devices import place
from ps_nb.reproduction.throughput import calm, fill_memory, noise_batch, random_scenes
from ps_nb.systems.recipes import cgps, ctxg, cucps, deep, joint, oim, rsiam, seqnet
from ps_nb.systems.runs import new_network, new_objective
from ps_nb.training.loop import train_step
from ps_nb.twin.render import render_twin

CPU = torch.device("cpu")
# A step waits for whom the regions show and for whom detection has found, of seqnet for whom the second head's regions show;
# cgps for how many clusters there are; cucps for who was seen, what each round adds, here the first, and who was mined. A
# search waits for how many are left.
WAITS = {oim: (2, 1), ctxg: (2, 1), cgps: (3, 1), cucps: (5, 1), rsiam: (0, 1), joint: (1, 1), deep: (0, 1), seqnet: (2, 1)}
SUPPRESSIONS = {rsiam: (0, 1), deep: (0, 1), seqnet: (1, 3)}  # in a step and in a search, of all images together; else 1 and 2


@pytest.fixture
def there(monkeypatch):
    "The pretended device, to which modules can be moved."
    moved = torch.__future__.get_overwrite_module_params_on_conversion()
    plain = torch.autocast
    monkeypatch.setattr(torch, "autocast", lambda kind, *words, **more: plain("cpu" if kind == "meta" else kind, *words, **more))
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    yield PretendedDevice()
    torch.__future__.set_overwrite_module_params_on_conversion(moved)


def one_step(searcher, objective, batch, device):
    "Losses of a step of training in float32."
    optimiser = torch.optim.SGD([each for each in searcher.parameters() if each.requires_grad], lr=0.01, foreach=False)
    accelerator = SimpleNamespace(device=device, backward=lambda loss: loss.backward(),
                                  clip_grad_norm_=lambda parameters, most: torch.nn.utils.clip_grad_norm_(parameters, most))
    torch.manual_seed(3)
    return train_step(accelerator, searcher.train(), objective, optimiser, [batch], [1], 10.0)


@pytest.mark.parametrize("system", WAITS, ids=lambda system: system.__name__)
def test_a_device_does_the_same_and_is_seldom_waited_for(system, there):
    recipe = system("smoke")
    data = SearchSet("noise", random_scenes(20, recipe.test_size), [])
    images = recipe.schedule.batch_size
    batch = noise_batch(data.train[:images], CPU)
    seed_everything(0)
    searcher = calm(new_network(replace(recipe.detector, score_threshold=0.0), data.train_persons))
    for name, parameter in searcher.named_parameters():
        parameter.data *= 30 if name.endswith("score.weight") else 1  # or boxes would be ordered by rounding
    objective = fill_memory(new_objective(recipe, data))
    moved = copy.deepcopy(searcher), copy.deepcopy(objective)
    found = searcher.eval().detect(batch)
    losses = one_step(searcher, objective, batch, CPU)
    with there:
        for part in moved:
            place(part, DEVICE)
        batch = batch.to(DEVICE)
        there.waits.clear()
        there.launches.clear()
        answers = moved[0].eval().detect(batch)
        in_search, searching = there.waits.copy(), there.launches.copy()
        there.waits.clear()
        there.launches.clear()
        answered = one_step(*moved, batch, DEVICE)
        in_step, stepping = there.waits.copy(), there.launches.copy()
        assert [[len(each) for each in image] for image in answers] == [[len(each) for each in image] for image in found]
        for expected, image in zip(found, answers):
            same = torch.cdist(expected[0], image[0].cpu()).argmin(dim=1)  # equal scores may change places by rounding
            assert sorted(same.tolist()) == list(range(len(same)))
            for one, other in zip(expected, image):
                assert torch.allclose(one, other.cpu()[same], atol=1e-3)
        assert {name: value.item() for name, value in answered.items()} == pytest.approx(
            {name: value.item() for name, value in losses.items()}, rel=1e-4, abs=1e-6)
        for one, other in zip((searcher, objective), moved):
            state = other.state_dict()
            for name, value in one.state_dict().items():
                if isinstance(value, torch.Tensor):
                    assert torch.allclose(value, state[name].cpu(), atol=1e-4), name
    assert (in_step.total(), in_search.total()) == WAITS[system], (in_step, in_search)
    suppressions = stepping["ps_nb::first_kept"], searching["ps_nb::first_kept"]
    assert suppressions == SUPPRESSIONS.get(system, (1, 2))  # none of which waits
    assert not searching["aten::native_batch_norm"]  # folded into weights
    assert recipe.detector.batch_statistics or not stepping["aten::native_batch_norm"]
    assert searching.total() < 500 and stepping.total() < 2000  # as many as a GPU is given, by one that is not recorded


def test_images_read_ahead_of_a_device_are_those_of_their_scenes(there, tmp_path):
    recipe = oim("smoke")
    data = render_twin("cuhk-twin", tmp_path / "twin", "smoke")
    scenes = data.gallery[:6]
    seed_everything(0)
    searcher = calm(new_network(recipe.detector, data.train_persons))
    plain = embed_scenes(searcher, scenes, recipe.test_size)
    with there:
        moved = embed_scenes(place(copy.deepcopy(searcher), DEVICE), scenes, recipe.test_size)
    assert np.array_equal(moved.boxes, plain.boxes) and np.allclose(moved.features, plain.features, atol=1e-4)
    assert len(plain.features) > 6 and not np.allclose(plain.features, plain.features[::-1], atol=1e-3)


@given(seed=st.integers(0, 10**6), count=st.integers(0, 60), limit=st.integers(1, 12), threshold=st.sampled_from([0.0, 0.3, 0.7]))
@settings(max_examples=40, deadline=None)
def test_a_prefix_of_candidates_gives_the_first_of_those_kept(seed, count, limit, threshold):
    draw = torch.Generator().manual_seed(seed)
    corners = torch.randint(0, 30, (2, count, 2), generator=draw).float()
    boxes = torch.cat([corners, corners + torch.randint(0, 20, (2, count, 2), generator=draw)], dim=2)  # some equal
    scores = torch.randint(0, 8, (2, count), generator=draw).float()
    scores[torch.rand(2, count, generator=draw) < 0.2] = -torch.inf
    index, there = suppress(boxes, scores, threshold, limit)
    for own, values, places, filled in zip(boxes, scores, index, there):
        whole = nms(own, values, threshold)[:limit]
        assert places[filled].tolist() == whole[values[whole].isfinite()].tolist()


@pytest.mark.parametrize("kind, samples", [("bf16", 2), ("fp32", 2), ("bf16", 0)])
def test_kernels_compile_for_a_gpu(kind, samples, tmp_path, monkeypatch):
    triton, compiler = pytest.importorskip("triton"), pytest.importorskip("triton.compiler")
    from triton.backends.compiler import GPUTarget

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    numbers = dict.fromkeys(("channels", "height", "width", "high", "wide"), "i32") | {"scale": "fp32"}
    cut = {"maps": f"*{kind}", "rows": "*fp32", "regions": f"*{kind}"} | numbers
    spread = {"slopes": f"*{kind}", "rows": "*fp32", "gradient": f"*{kind}", "regions": "i32"} | numbers
    suppress = {"boxes": "*fp32", "places": "*fp32", "kept": "*i64", "candidates": "i32", "limit": "i32", "threshold": "fp32"}
    blocks = {"samples": samples, "columns": 16, "block": 128}
    for kernel, types, fixed in ((kernels.cut_kernel, cut, blocks), (kernels.spread_kernel, spread, blocks),
                                 (kernels.suppress_kernel, suppress, {"block": 64})):
        plain = getattr(kernel, "fn", kernel)
        order = {name: (types | dict.fromkeys(fixed, "constexpr"))[name] for name in inspect.signature(plain).parameters}
        source = compiler.ASTSource(fn=triton.runtime.JITFunction(plain), signature=order, constexprs=fixed)
        assert compiler.compile(source, target=GPUTarget("cuda", 90, 32)).asm["cubin"]


def test_what_a_gpu_would_refuse_is_refused(there):
    with there:
        device = torch.arange(3.0, device=DEVICE)
        with pytest.raises(AssertionError, match="two devices"):
            device + torch.ones(3)
        assert (device + 1).cpu().tolist() == [1, 2, 3] and there.waits.total() == 1
        assert device[device > 0].tolist() == [1, 2] and there.waits.total() == 3
