"""Backbones by name: shape of their features, stems, and what is said when a name or weights cannot be had."""

from __future__ import annotations

import importlib.util
import urllib.error

import pytest
import torch
import torchvision
from torch import nn

from fastssl.models import backbones

needs_timm = pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")


@pytest.mark.parametrize(
    "name, size, width",
    [
        ("resnet18", 32, 512),
        ("resnet18", 96, 512),
        ("squeezenet1_1", 64, 512),
        ("mobilenet_v3_small", 64, 1024),
        ("shufflenet_v2_x0_5", 64, 1024),
        ("regnet_y_400mf", 64, 440),
        ("mnasnet0_5", 64, 1280),
        ("densenet121", 64, 1024),
        ("efficientnet_b0", 64, 1280),
        ("convnext_tiny", 64, 768),
        ("swin_t", 64, 768),
        ("vit_b_16", 32, 768),
        pytest.param("resnet10t", 64, 512, marks=needs_timm),
        pytest.param("vit_tiny_patch16_224", 32, 192, marks=needs_timm),
        pytest.param("mobilenetv3_small_050", 64, 1024, marks=needs_timm),
        pytest.param("test_convnext", 64, 64, marks=needs_timm),
    ],
)
def test_images_become_pooled_features(name: str, size: int, width: int) -> None:
    model = backbones.create(name, input_size=size).train()
    features = model(torch.randn(2, 3, size, size))
    assert features.shape == (2, width) == (2, model.num_features)


def test_resnet_is_torchvisions_without_its_last_layer() -> None:
    torch.manual_seed(0)
    ours = backbones.create("resnet18").eval()
    theirs = torchvision.models.resnet18()
    theirs.load_state_dict(ours.state_dict(), strict=False)
    theirs.fc = nn.Identity()
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(ours(x), theirs.eval()(x))


def test_no_dropout_stands_before_the_features() -> None:
    model = backbones.create("efficientnet_b0")
    assert not any(isinstance(module, nn.Dropout) for module in model.classifier)


@pytest.mark.parametrize("name", ["resnet18", pytest.param("resnet10t", marks=needs_timm)])
@pytest.mark.parametrize(
    "stem, size, stride",
    [("auto", 32, 1), ("auto", 64, 1), ("auto", 65, 4), ("auto", 224, 4), ("small", 224, 1), ("standard", 32, 4)],
)
def test_stem_divides_the_image_by(name: str, stem: backbones.Stem, size: int, stride: int) -> None:
    model = backbones.create(name, stem=stem, input_size=size)
    activation = model.relu if name == "resnet18" else model.act1
    x = model.maxpool(activation(model.bn1(model.conv1(torch.zeros(1, 3, 64, 64)))))
    assert x.shape[-1] == 64 // stride


def test_auto_leaves_what_is_no_resnet_as_it_is() -> None:
    assert backbones.create("mobilenet_v3_small", input_size=32).features[0][0].stride == (2, 2)


def test_small_stem_of_what_is_no_resnet_is_an_error() -> None:
    with pytest.raises(
        ValueError, match=r'stem="small" is for ResNets and \'squeezenet1_1\' is a SqueezeNet.*"standard"'
    ):
        backbones.create("squeezenet1_1", stem="small")


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"name": "resnet81"}, "'resnet81' is no model of torchvision or timm; did you mean .*'resnet"),
        ({"name": "?"}, 'write a name such as "resnet18"'),
        ({"name": "resnet18", "stem": "tiny"}, 'stem=\'tiny\' is unknown; write "auto", "small" or "standard"'),
        ({"name": "resnet18", "input_size": 0}, "input_size=0 is the side of the images"),
    ],
)
@needs_timm
def test_wrong_arguments_are_named(arguments: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        backbones.create(**arguments)


def test_unknown_name_without_timm_says_that_timm_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"no model of torchvision \(timm is not installed\)"):
        backbones.create("vit_tiny_patch16_224")


def test_weights_that_cannot_be_had_are_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", no_network)
    with pytest.raises(
        RuntimeError, match=r"torchvision's weights of 'resnet18' \(URLError.*no network.*pretrained=False"
    ):
        backbones.create("resnet18", pretrained=True)
