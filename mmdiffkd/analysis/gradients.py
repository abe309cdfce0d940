"""How near the distance's gradient with few `grad_steps` is to the whole one.

The gradient that passes through the last denoising steps alone is compared
with the one that passes through all steps, with the same noise.
"""

from copy import deepcopy
from itertools import islice

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, set_random_seed
from torch import Tensor

from mmdiffkd.models.distillers import Distiller
from mmdiffkd.models.distillers.teacher import build_from_config
from mmdiffkd.models.necks import DiffKDNeck
from mmdiffkd.utils import read_checkpoint
from mmdiffkd.utils.data_root import check_data_root

from .tables import markdown


def gradients(
    model: Distiller, data: dict, grad_steps: int | None
) -> dict[str, Tensor]:
    """The distances' gradients, one long vector a part.

    Args:
        model (Distiller): Is left as it is.
        data (dict): A batch that its preprocessor has seen.
        grad_steps (int, optional): In how many steps the gradient passes
            through the denoiser; None is all.

    Returns:
        dict[str, Tensor]: Of the ``student`` and of the ``denoiser``.
    """
    model = deepcopy(model)
    necks = [m for m in model.modules() if isinstance(m, DiffKDNeck)]
    for neck in necks:
        if grad_steps is not None:
            neck.sampler.grad_steps = grad_steps
    with torch.random.fork_rng():
        # The student's own randomness, dropout say, is the same each time.
        torch.manual_seed(0)
        losses = model.loss(data['inputs'], data['data_samples'])
    distances = [v for k, v in losses.items() if k.endswith('.loss_kd')]
    denoisers = [p for neck in necks for p in neck.denoiser.parameters()]
    parts = {'student': list(model.student.parameters())}
    parts['denoiser'] = denoisers
    found = torch.autograd.grad(
        sum(distances),
        [p for part in parts.values() for p in part],
        allow_unused=True,
        materialize_grads=True,
    )
    flat = iter(g.flatten() for g in found)
    return {
        name: torch.cat(list(islice(flat, len(part))))
        for name, part in parts.items()
    }


def compare(config: Config, checkpoint: str, batches: int) -> list[dict]:
    """Compare gradients on batches of the training data.

    Args:
        config (Config): A distiller's whole config.
        checkpoint (str): The weights of one of its trainings, necks included.
        batches (int): How many.

    Returns:
        list[dict]: A row for each number of ``grad_steps``: for ``student``
        and ``denoiser`` the mean ``cosine`` and ``length``, relative to the
        whole gradient's.

    Raises:
        ValueError: If there is no DiffKD neck, or none in the checkpoint.
    """
    check_data_root(config, ('train_dataloader',))
    init_default_scope(config.get('default_scope', 'mmengine'))
    # Noise and augmentation are the same in every call.
    set_random_seed(0)
    model = build_from_config(config)
    steps = [
        len(m.sampler.timesteps)
        for m in model.modules()
        if isinstance(m, DiffKDNeck)
    ]
    if not steps:
        raise ValueError(
            'the config has no DiffKDNeck in `model.distill`: there are no '
            'denoising steps to compare'
        )
    state = read_checkpoint(checkpoint)
    if 'distill_state_dict' not in state:
        raise ValueError(
            f'{checkpoint} has no `distill_state_dict`: give a checkpoint '
            'that mmdiffkd.CheckpointHook wrote during training'
        )
    model.init_weights()
    model.load_state_dict(state['state_dict'] | state['distill_state_dict'])
    model.to(get_device()).train()
    loader = Runner.build_dataloader(deepcopy(config.train_dataloader), seed=0)
    rows = [{'grad_steps': k, 'found': []} for k in range(1, max(steps) + 1)]
    for batch in islice(loader, batches):
        data = model.data_preprocessor(batch, True)
        whole = gradients(model, data, None)
        for row in rows:
            part = gradients(model, data, row['grad_steps'])
            row['found'].append([_nearness(part[k], whole[k]) for k in whole])
    return [
        {
            'grad_steps': row['grad_steps'],
            **{
                name: dict(zip(('cosine', 'length'), mean))
                for name, mean in zip(
                    ('student', 'denoiser'),
                    torch.tensor(row['found']).mean(dim=0).tolist(),
                )
            },
        }
        for row in rows
    ]


def _nearness(part: Tensor, whole: Tensor) -> tuple[float, float]:
    cosine = torch.cosine_similarity(part, whole, dim=0)
    return cosine.item(), (part.norm() / whole.norm()).item()


def table(rows: list[dict]) -> str:
    """What :func:`compare` found, in Markdown."""
    return markdown(
        [
            'grad_steps',
            "student's gradient: cosine",
            'length',
            "denoiser's: cosine",
            'length',
        ],
        [
            [
                row['grad_steps'],
                *(
                    f'{row[part][key]:.3f}'
                    for part in ('student', 'denoiser')
                    for key in ('cosine', 'length')
                ),
            ]
            for row in rows
        ],
    )
