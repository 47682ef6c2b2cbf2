"""Choosing who decodes, and moving the share at run time."""

import logging

import pytest
import torch

from fastssl import Loader, recipes
from fastssl.pipelines import Choice, choose
from fastssl.pipelines.balance import Balance

CPU = torch.device("cpu")


def machine(cpu, device, both=1.0):
    """Images a second of a machine whose CPU and device decode so many; `both` is what is left when they do at once."""

    def measure(choice):
        if choice.decoder is None:
            return cpu
        if choice.share == 1:
            return device[choice.decoder]
        return both * min(cpu / (1 - choice.share), device[choice.decoder] / choice.share)

    return measure


@pytest.mark.parametrize("cpu, device, both, want", [
    (1000, {"nvjpeg": 4000}, 1.0, "nvjpeg 80%"),
    (1000, {"nvjpeg": 4000}, 0.5, "nvjpeg"),
    (9000, {"nvjpeg": 3000}, 0.7, "cpu"),
    (9000, {"nvjpeg": 3000}, 1.0, "nvjpeg 25%"),
    (1000, {"nvjpeg": 1020}, 0.5, "cpu"),  # 2 % are not worth the device's time
    (1000, {"nvjpeg": 2000, "dali": 5000}, 0.6, "dali"),
    (1000, {"nvjpeg": 5000, "dali": 2000}, 0.6, "nvjpeg"),
    (1000, {}, 1.0, "cpu"),
])  # fmt: skip
def test_the_fastest_is_chosen(caplog, cpu, device, both, want):
    with caplog.at_level(logging.INFO, "fastssl"):
        choice = choose.choose(machine(cpu, device, both), list(device), CPU)
    assert str(choice) == want
    assert choice.balanced == (0 < choice.share < 1)
    assert choice.rates["cpu"] == cpu and len(choice.rates) == 1 + 2 * len(device)
    assert choice.describe()["by"] == want and 0 <= choice.busy["cpu"] <= 1
    (record,) = caplog.records
    assert f"by {want}:" in record.getMessage() and f"cpu {cpu:,}" in record.getMessage()


def settle(cpu, device, demand, share, batches=400, images=256):
    """The last shares of a pipeline whose consumer takes at most `demand` images a second."""
    balance = Balance(share, fixed=False)
    shares, waits = [], []
    for _ in range(batches):
        left = balance.leave(images)
        by_cpu, by_device, work = (images - left) / cpu, left / device, images / demand
        seconds = max(by_cpu, by_device, work)
        waited = seconds - work
        waited_cpu = waited if by_cpu >= by_device else 0.0
        balance.note(seconds, waited_cpu, waited - waited_cpu, images)
        shares.append(balance.share)
        waits.append(waited / seconds)
    return shares[-100:], waits[-100:]


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_share_finds_the_balance(share):
    shares, waits = settle(cpu=1000, device=3000, demand=1e9, share=share)
    assert min(shares) > 0.65 and max(shares) < 0.85  # 0.75 is where both take as long
    shares, waits = settle(cpu=4000, device=3000, demand=2000, share=share)
    assert max(shares) < 0.05, "the CPU keeps up alone"
    shares, waits = settle(cpu=1000, device=3000, demand=2000, share=share)
    assert min(shares) > 0.45 and max(shares) < 0.65, "the device takes what the CPU cannot, and little more"
    assert sum(waits) / len(waits) < 0.05


def test_a_fixed_share_stays():
    balance = Balance(0.3, fixed=True)
    balance.note(1.0, 0.9, 0.0, 10)
    assert balance.share == 0.3 and balance.leave(10) == 3


@pytest.mark.parametrize("arguments, words", [
    ({"decoder": "jpeg2000"}, "decoder='jpeg2000'"),
    ({"decoder": "dali", "share": 1.5}, "share=1.5"),
])  # fmt: skip
def test_bad_choices(arguments, words):
    with pytest.raises(ValueError, match=words):
        Choice(**arguments)


@pytest.mark.parametrize("decode", ["nvjpeg", "dali", Choice(decoder="nvjpeg", share=0.5)])
def test_a_decoder_of_the_device_needs_one(photos, decode):
    with pytest.raises(ValueError, match=r'decodes on a GPU, and the device is "cpu"'):
        Loader(photos, recipes.simclr(16), decode=decode)


@pytest.mark.parametrize("decode", ["fast", 3, None, ""])
def test_decode_is_checked(photos, decode):
    with pytest.raises(ValueError, match="must be one of 'auto', 'full', 'cpu', 'nvjpeg', 'dali'"):
        Loader(photos, recipes.simclr(16), decode=decode)


@pytest.mark.parametrize("options, words", [
    ({"cache": "ram"}, "the cache keeps what the CPU has decoded"),
    ({"image_step": lambda image: image}, "image_step gets what the CPU has decoded"),
])  # fmt: skip
def test_what_only_the_cpu_can_do(photos, options, words):
    with pytest.raises(ValueError, match=words):
        Loader(photos, recipes.simclr(16), device="cuda", decode="nvjpeg", **options)


def test_no_nvjpeg_without_a_gpu():
    assert "decodes on a GPU" in choose.why_not_decoder("nvjpeg", CPU)
    with pytest.raises(RuntimeError, match=r"decode='nvjpeg': .*write decode='cpu'"):
        choose.make_decoder("nvjpeg", CPU, 4, 1)
