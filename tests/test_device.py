"""Where a run computes: how the device is chosen, and that nothing is made in the wrong place."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import pytest
import torch

from cryospin import device as choosing
from cryospin import packing, preparation, settings
from cryospin.device import Choice, choose
from cryospin.engine.record import Silence
from cryospin.errors import InputError
from cryospin.formats.volume import read_map
from cryospin.fourier import CPU
from cryospin.kernels import cpu, dispatch
from cryospin.pipeline import reconstruct, resume
from cryospin.settings import Settings
from cryospin.simulation import ImagingConditions, simulate
from far_device import FAR, FAR_KERNELS, FarUpload, far_device


@pytest.fixture
def card(monkeypatch):
    """A machine with one usable CUDA device."""
    found = SimpleNamespace(name="Abacus 9000", total_memory=80 << 30)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: found.name)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: found)
    monkeypatch.setattr(choosing.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setenv("CC", "cc")


def test_auto_and_cuda_take_the_first_device(card):
    for name in ("auto", "cuda", "cuda:0"):
        device, reason = choose(name)
        assert device == torch.device("cuda:0")
        assert reason == "Abacus 9000, 80 GiB"
    assert choose("cpu").device == CPU


@pytest.mark.parametrize(
    ("lacking", "says", "remedy"),
    [
        (("torch.cuda.is_available", lambda: False), "CUDA", "PyTorch|driver"),
        (("torch.cuda.get_device_capability", lambda index: (7, 5)), "Abacus 9000 is older", "8.0"),
        (("cryospin.device.importlib.util.find_spec", lambda name: None), "Triton is not installed", "pip install triton"),
        (("cryospin.device._COMPILERS", ("no-such-compiler",)), "C compiler", "gcc"),
    ],
    ids=["no device", "an old device", "no Triton", "no compiler"],
)
def test_what_is_lacking_is_named_and_auto_goes_on_without(card, monkeypatch, lacking, says, remedy):
    monkeypatch.delenv("CC")
    monkeypatch.setattr(*lacking)
    with pytest.raises(InputError, match=says) as failure:
        choose("cuda")
    assert "or give --device cpu" in str(failure.value)
    assert any(word in str(failure.value) for word in remedy.split("|"))
    assert "\n" not in str(failure.value)
    device, reason = choose("auto")
    assert device == CPU
    assert says in reason


def test_a_device_that_is_not_there_is_refused(card):
    with pytest.raises(InputError, match="only 1 CUDA device"):
        choose("cuda:3")


def test_another_name_is_refused():
    for name in ("abacus", "cuda:x", "cuda:", ""):
        with pytest.raises(InputError, match="cuda:0"):
            choose(name)


def test_kernels_follow_the_device():
    assert dispatch.kernels_for(CPU) is cpu
    assert dispatch.slices.__doc__ == dispatch.reference.slices.__doc__


def test_tensors_on_two_devices_do_not_mix():
    with far_device() as device:
        a = torch.ones(3, 2, device=device)
        assert (a + 1).device == FAR
        assert a[torch.tensor([0, 2])].device == FAR
        with pytest.raises(RuntimeError, match="one device"):
            a + torch.ones(2)
        with pytest.raises(RuntimeError, match="one device"):
            torch.ones(3)[a[:, 0].long()]
        with pytest.raises(TypeError, match="array"):
            a.numpy()
        assert a.cpu().numpy().shape == (3, 2)


@pytest.fixture(scope="module")
def images(tmp_path_factory, blobs):
    """A few bright images."""
    out = tmp_path_factory.mktemp("images")
    simulate(blobs.density(24), 8.0, 120, out, ImagingConditions(snr=1.0, shift_sd=0.5), seed=3)
    return out


class Interrupted(BaseException):
    """Ends a run at once."""


class Interrupting(Silence):
    """Ends a run after so many epochs."""

    def __init__(self, epochs):
        self.left = epochs

    def epoch(self, record):
        self.left -= 1
        if self.left == 0:
            raise Interrupted


@pytest.fixture
def far_away(monkeypatch):
    """Runs on a device that is told from the CPU only by refusing to mix with it; called where it has no room for images."""
    room = [True]
    monkeypatch.setattr(dispatch, "kernels_for", lambda device: FAR_KERNELS if device.type == "cuda" else cpu)
    monkeypatch.setattr(packing, "Upload", FarUpload)
    monkeypatch.setattr(preparation, "fits_on", lambda device, count, box: room[0])
    monkeypatch.setattr("cryospin.checkpoints.SHARE", float("inf"))
    # Without CUDA, PyTorch only says that there is no bfloat16 on it.
    monkeypatch.setattr("cryospin.proposals.heads.torch.autocast", lambda *a, **k: warnings.catch_warnings())
    return lambda: room.__setitem__(0, False)


def stopped_and_resumed(monkeypatch, chosen, run, epochs, **more):
    """A run there that was stopped after so many epochs, then finished."""
    monkeypatch.setattr(settings, "choose", lambda name: Choice(FAR, "not really there"))
    with far_device():
        with pytest.raises(Interrupted):
            reconstruct(Settings(**chosen, **more, out=run), Interrupting(epochs))
        assert resume(run)


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["paper", "cryoai"])
@pytest.mark.usefixtures("far_away")
def test_a_preset_that_learns_goes_on_on_a_device(images, tmp_path, monkeypatch, preset):
    options = {"channels": (8, 8, 8, 8, 8), "features": (16, 8), "encoding_epochs": 3}
    options |= {"decoding_epochs": 2} if preset == "paper" else {"implicit_width": 16}
    chosen = {"particles": images / "particles.star", "preset": preset, "threads": 1, "options": options}
    reconstruct(Settings(**chosen, out=tmp_path / "near", device="cpu"))
    stopped_and_resumed(monkeypatch, chosen, tmp_path / "far", 2)
    for name in ("map.mrc", "map_from_poses.mrc"):
        assert torch.equal(read_map(tmp_path / "far" / name)[0], read_map(tmp_path / "near" / name)[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("proposals", "symmetry", "room", "memory", "where", "stops"),
    [
        ("both", "C1", True, None, "on the device", 2),
        ("both", "C2", True, None, "on the device", 5),
        ("grid", "C1", False, None, "in memory, since the device does not hold them", 4),
        ("heads", "C1", False, 0.1, "on disk, since memory does not hold them", 6),
    ],
    ids=["resident", "symmetric", "in memory", "on disk"],
)
def test_a_run_on_a_device_keeps_everything_there(
    images, tmp_path, monkeypatch, far_away, proposals, symmetry, room, memory, where, stops
):
    # The same steps, and the same result; also where it was stopped on the way.
    if not room:
        far_away()
    monkeypatch.setattr("cryospin.proposals.grid._FINEST_STEP_DEG", 30.0)
    for module in ("explore_grid", "explore_heads"):
        monkeypatch.setattr(f"cryospin.engine.{module}._EPOCHS", 2)
    monkeypatch.setattr("cryospin.engine.explore_grid._BATCHES", 2)
    monkeypatch.setattr("cryospin.engine.refine.Refinement.epochs", 3)
    monkeypatch.setattr("cryospin.start.COMPETITORS", 80)
    chosen = {"particles": images / "particles.star", "proposals": proposals, "threads": 1, "starts": 1, "memory": memory}
    chosen["symmetry"] = symmetry
    near = reconstruct(Settings(**chosen, out=tmp_path / "near", device="cpu"))
    run = tmp_path / "far"
    stopped_and_resumed(monkeypatch, chosen, run, stops, truth_poses=images / "truth.star")
    log = (run / "log.txt").read_text()
    assert "computing on cuda:0 (not really there)" in log
    assert f"are kept {where}\n" in log
    assert torch.equal(read_map(run / "map.mrc")[0], read_map(tmp_path / "near" / "map.mrc")[0])
    assert near.maps.map.device == CPU
