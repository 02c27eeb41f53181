"""The small classifier whose features and verdicts judge digits."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

ASSET = Path(__file__).parent.parent / "assets" / "digits" / "classifier.safetensors"


class DigitClassifier(nn.Module):
    """A convolutional network on [B, 1, 8, 8] images in [-1, 1]; its 64-wide penultimate layer is the feature space."""

    width = 64

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * 4 * 4, self.width),
        )
        self.head = nn.Sequential(nn.ReLU(), nn.Dropout(0.2), nn.Linear(self.width, 10))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[B, 10] logits."""
        return self.head(self.trunk(images))

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """[B, 64] activations of the penultimate layer."""
        return torch.relu(self.trunk(images))

    @torch.no_grad()
    def scale_features(self, factor: float) -> None:
        """Multiply the features by `factor` > 0 and leave the logits as they are (a ReLU lets factors through)."""
        into, out = self.trunk[-1], self.head[-1]
        assert isinstance(into, nn.Linear)
        assert isinstance(out, nn.Linear)
        into.weight.mul_(factor)
        into.bias.mul_(factor)
        out.weight.div_(factor)


def save_classifier(classifier: DigitClassifier, path: Path = ASSET) -> None:
    save_file(classifier.state_dict(), path, metadata={"format": "pt"})


def load_classifier(path: Path = ASSET) -> DigitClassifier:
    """The shipped classifier, in evaluation mode and frozen."""
    classifier = DigitClassifier()
    classifier.load_state_dict(load_file(path))
    return classifier.eval().requires_grad_(False)
