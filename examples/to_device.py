"""SimCLR with a DataLoader that only reads files: decoding and views are the device's and this process's threads.

python examples/to_device.py photos/ --epochs 10
"""

from __future__ import annotations

import argparse

import torch
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

import fastssl


def train(folder: str, epochs: int, *, batch_size: int = 256, input_size: int = 224, workers: int = 2) -> list[float]:
    """Trains a ResNet-18, and returns the mean loss of each epoch."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    reading = DataLoader(
        ImageFolder(folder, loader=str),  # gives paths
        batch_size=batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=True,
        collate_fn=fastssl.data.BytesCollate(),
    )
    recipe = fastssl.recipes.simclr(input_size)
    loader = fastssl.to_device(reading, recipe, device, dtype=torch.bfloat16, channels_last=True)
    backbone = fastssl.models.backbones.create("resnet18", input_size=input_size)
    model = torch.nn.Sequential(backbone, fastssl.models.modules.SimCLRProjectionHead(512, 512, 128))
    model.to(device, memory_format=torch.channels_last)
    criterion = fastssl.loss.NTXentLoss(temperature=0.1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.12 * batch_size / 256, momentum=0.9, weight_decay=5e-4)

    losses: list[float] = []
    for epoch in range(epochs):
        total = torch.zeros((), device=device)  # read once an epoch: a step need not wait for the device
        for views, _targets, _filenames in loader:
            with torch.autocast(device, torch.bfloat16):
                z = model(torch.cat(views))
            loss = criterion(*z.float().chunk(2))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach()
        losses.append(total.item() / len(loader))
        print(f"epoch {epoch + 1}: loss {losses[-1]:.3f}; {loader.stats()['advice']}")
    return losses


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", metavar="DATA", help="folder of a folder of images for each class")
    for name, default in (("--epochs", 10), ("--batch-size", 256), ("--input-size", 224)):
        parser.add_argument(name, type=int, default=default)
    arguments = parser.parse_args()
    train(arguments.data, arguments.epochs, batch_size=arguments.batch_size, input_size=arguments.input_size)
