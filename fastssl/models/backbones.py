"""Backbones by name: any classifier of torchvision or timm without its last layer."""

from __future__ import annotations

import difflib
import importlib.util
from typing import Any, Literal, cast

import torchvision
from torch import nn

__all__ = ["create"]

Stem = Literal["auto", "small", "standard"]

# Images up to this side lose too much to a stem that divides it by four; SimCLR's CIFAR-10 runs use the small stem.
LARGEST_SIZE_FOR_SMALL_STEM = 64


def create(name: str, *, stem: Stem = "auto", pretrained: bool = False, input_size: int = 224) -> nn.Module:
    """A backbone: maps images, (B, 3, S, S), to pooled features, (B, num_features).

    The classifier, with the dropout before it, is nn.Identity; other parameters keep the library's names.

    Args:
        name: A model of torchvision ("resnet18"), else of timm ("vit_small_patch16_224").
        stem: "standard": as the library builds it. "small": for ResNets, a 3x3 convolution of stride 1 and no
            max-pool, as SimCLR has it for CIFAR-10. "auto": small for ResNets of input_size up to 64.
        pretrained: Whether to take the library's default weights, downloaded where they are not in its cache. A small
            stem is new even then.
        input_size: Side S of the images, in pixels; vision transformers are built for it.

    Returns:
        The library's module, with the attribute num_features.

    Raises:
        ValueError: The name is unknown, stem is unknown or "small" for what is no ResNet, or input_size < 1.
        RuntimeError: The weights cannot be had.

    Source: Chen et al., SimCLR, 2020, arXiv:2002.05709, appendix B.9 (small stem).

    >>> create("resnet18", input_size=32).num_features
    512
    """
    if stem not in ("auto", "small", "standard"):
        raise ValueError(f'backbones.create: stem={stem!r} is unknown; write "auto", "small" or "standard".')
    if input_size < 1:
        raise ValueError(f"backbones.create: input_size={input_size} is the side of the images in pixels; write 224.")
    if name in torchvision.models.list_models(module=torchvision.models):
        model = _from_torchvision(name, pretrained, input_size)
    else:
        model = _from_timm(name, pretrained, input_size)
    if stem == "small" or (stem == "auto" and input_size <= LARGEST_SIZE_FOR_SMALL_STEM and _is_resnet(model)):
        _make_stem_small(name, model)
    return model


def _from_torchvision(name: str, pretrained: bool, input_size: int) -> nn.Module:
    options: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3") and not pretrained:
        options = {"init_weights": True, "aux_logits": False}
    elif name.startswith("vit_") and not pretrained:
        options = {"image_size": input_size}
    elif name.startswith("maxvit_") and not pretrained:
        options = {"input_size": (input_size, input_size)}
    try:
        model = torchvision.models.get_model(name, weights="DEFAULT" if pretrained else None, **options)
    except OSError as error:
        raise _no_weights(name, "torchvision", error) from error
    if hasattr(model, "aux_logits"):
        model.aux_logits = False
    model.num_features = _remove_classifier(model)
    return model


def _remove_classifier(model: nn.Module) -> int:
    """Replaces the last layer and the dropout before it by nn.Identity; returns its width."""
    if isinstance(model, torchvision.models.SqueezeNet):  # its classifier is a convolution, then the pooling
        width: int = model.classifier[1].in_channels
        model.classifier = nn.AdaptiveAvgPool2d(1)
        return width
    last = [path for path, module in model.named_modules() if isinstance(module, nn.Linear)][-1]
    parent_path, _, attribute = last.rpartition(".")
    parent = model.get_submodule(parent_path)
    linear = cast(nn.Linear, model.get_submodule(last))
    setattr(parent, attribute, nn.Identity())
    siblings = list(parent.named_children())
    before = siblings[[sibling for sibling, _ in siblings].index(attribute) - 1]
    if isinstance(before[1], nn.Dropout):
        setattr(parent, before[0], nn.Identity())
    return linear.in_features


def _from_timm(name: str, pretrained: bool, input_size: int) -> nn.Module:
    if importlib.util.find_spec("timm") is None:
        raise _unknown(
            name, torchvision.models.list_models(module=torchvision.models), "torchvision (timm is not installed)"
        )
    import timm

    if not timm.is_model(name):
        names = [*torchvision.models.list_models(module=torchvision.models), *timm.list_models()]
        raise _unknown(name, names, "torchvision or timm")
    options: dict[str, Any] = {}
    config = timm.get_pretrained_cfg(name)
    if config is not None and config.fixed_input_size:
        options = {"img_size": input_size}
    try:
        model: nn.Module = timm.create_model(name, pretrained=pretrained, num_classes=0, **options)
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        raise _no_weights(name, "timm", error) from error
    # timm's num_features is the width before a head's hidden layer, where it has one.
    model.num_features = getattr(model, "head_hidden_size", model.num_features)
    return model


def _is_resnet(model: nn.Module) -> bool:
    if isinstance(model, torchvision.models.ResNet):
        return True
    if not type(model).__module__.startswith("timm."):
        return False
    from timm.models.resnet import ResNet

    return isinstance(model, ResNet)


def _make_stem_small(name: str, model: nn.Module) -> None:
    if not _is_resnet(model):
        raise ValueError(
            f'backbones.create: stem="small" is for ResNets and {name!r} is a {type(model).__name__}; write '
            'stem="standard", or another name, such as "resnet18".'
        )
    width = cast(nn.Conv2d, model.get_submodule("layer1.0.conv1")).in_channels
    convolution = nn.Conv2d(3, width, kernel_size=3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    model.conv1, model.maxpool = convolution, nn.Identity()


def _unknown(name: str, names: list[str], where: str) -> ValueError:
    near = difflib.get_close_matches(name, names, n=3)
    advice = f"did you mean {' or '.join(map(repr, near))}?" if near else 'write a name such as "resnet18".'
    return ValueError(f"backbones.create: {name!r} is no model of {where}; {advice}")


def _no_weights(name: str, library: str, error: Exception) -> RuntimeError:
    return RuntimeError(
        f"backbones.create: cannot get {library}'s weights of {name!r} ({type(error).__name__}: {error}); put them "
        "into the library's cache on a machine with a network, or write pretrained=False."
    )
