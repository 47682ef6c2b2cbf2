"""SimCLR in plain PyTorch: an ordinary DataLoader, whose collate function makes the views.

python examples/plain_pytorch.py photos/ --epochs 10
"""

from __future__ import annotations

import argparse

import torch
from torch.utils.data import DataLoader

import fastssl


def train(folder: str, epochs: int, *, batch_size: int = 256, input_size: int = 224, workers: int = 2) -> list[float]:
    """Trains a ResNet-18, writes its weights to simclr.pt, and returns the mean loss of each epoch."""
    dataset = fastssl.data.LightlyDataset(folder)
    loader = DataLoader(
        dataset,
        batch_size=batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        collate_fn=fastssl.data.SimCLRCollateFunction(input_size=input_size),
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    backbone = fastssl.models.backbones.create("resnet18", input_size=input_size)
    head = fastssl.models.modules.SimCLRProjectionHead(512, 512, 128)
    model = torch.nn.Sequential(backbone, head).to(device)
    criterion = fastssl.loss.NTXentLoss(temperature=0.1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.12 * batch_size / 256, momentum=0.9, weight_decay=5e-4)

    losses = []
    for epoch in range(epochs):
        total = 0.0
        for (view0, view1), _targets, _filenames in loader:
            loss = criterion(model(view0.to(device)), model(view1.to(device)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        losses.append(total / len(loader))
        print(f"epoch {epoch + 1}: loss {losses[-1]:.3f}")
    torch.save(backbone.state_dict(), "simclr.pt")
    return losses


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", metavar="DATA", help="folder of images")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--input-size", type=int, default=224)
    arguments = parser.parse_args()
    train(arguments.data, arguments.epochs, batch_size=arguments.batch_size, input_size=arguments.input_size)
