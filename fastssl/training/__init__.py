"""From a folder of images to a pretrained backbone."""

from fastssl.training.pretrain import PretrainResult, pretrain

__all__ = ["PretrainResult", "pretrain"]
