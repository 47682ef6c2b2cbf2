"""SimCLR as a Lightning module, fed by fastssl's own loader.

python examples/lightning_module.py photos/ --epochs 10
"""

from __future__ import annotations

import argparse

import lightning as L
import torch

import fastssl


class SimCLR(L.LightningModule):
    """ResNet-18, projection head, NT-Xent."""

    def __init__(self, input_size: int = 224, lr: float = 0.12) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.backbone = fastssl.models.backbones.create("resnet18", input_size=input_size)
        self.head = fastssl.models.modules.SimCLRProjectionHead(512, 512, 128)
        self.criterion = fastssl.loss.NTXentLoss(temperature=0.1)

    def training_step(self, batch: fastssl.Batch, batch_idx: int) -> torch.Tensor:
        z0, z1 = (self.head(self.backbone(view)) for view in batch.views)
        loss = self.criterion(z0, z1)
        self.log("loss", loss, prog_bar=True, on_epoch=True, batch_size=len(batch))
        return loss

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=self.hparams.lr, momentum=0.9, weight_decay=5e-4)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def train(folder: str, epochs: int, *, batch_size: int = 256, input_size: int = 224) -> L.Trainer:
    """Trains and returns the trainer, whose callback_metrics hold the loss."""
    loader = fastssl.Loader(folder, fastssl.recipes.simclr(input_size), batch_size=batch_size, drop_last=True)
    trainer = L.Trainer(max_epochs=epochs, log_every_n_steps=1)
    trainer.fit(SimCLR(input_size, lr=0.12 * batch_size / 256), loader)
    return trainer


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", metavar="DATA", help="folder of images")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--input-size", type=int, default=224)
    arguments = parser.parse_args()
    train(arguments.data, arguments.epochs, batch_size=arguments.batch_size, input_size=arguments.input_size)
