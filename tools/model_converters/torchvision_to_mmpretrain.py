r"""Rename torchvision's ResNet weights to those of an mmpretrain classifier.

    python tools/model_converters/torchvision_to_mmpretrain.py \
        mmpretrain::resnet/resnet34_8xb32_in1k.py \
        https://download.pytorch.org/models/resnet34-b627a593.pth \
        checkpoints/resnet34_torchvision.pth

Both libraries define the same network, so that the converted model computes
the same logits. Any config whose backbone is mmpretrain's ``ResNet`` will do
(ResNeXt and wide ResNets as well).
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from mmdiffkd.models.distillers.teacher import build_from_config
from mmdiffkd.utils.checkpoint import (
    load_weights,
    plain_state_dict,
    read_checkpoint,
)
from mmdiffkd.utils.config import load_config


def convert(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of a torchvision ResNet.

    Args:
        weights (Mapping[str, Tensor]): torchvision's state dict.

    Returns:
        dict[str, Tensor]: The state dict of mmpretrain's ``ImageClassifier``
        with a ``ResNet`` and a ``LinearClsHead``.
    """
    return {
        f'head.{name}' if name.startswith('fc.') else f'backbone.{name}': value
        for name, value in weights.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('config', help='mmpretrain config of the same network')
    parser.add_argument('source', help="torchvision's weights, file or URL")
    parser.add_argument('output', type=Path, help='file to write')
    args = parser.parse_args()

    config = load_config(args.config)
    config.setdefault('default_scope', 'mmpretrain')
    model = build_from_config(config)
    weights = convert(plain_state_dict(read_checkpoint(args.source)))
    load_weights(model, weights, source=args.source)

    args.output.parent.mkdir(parents=True, exist_ok=True)
    torch.save({'state_dict': weights}, args.output)
    print(f'{len(weights)} tensors written to {args.output}')


if __name__ == '__main__':
    main()
