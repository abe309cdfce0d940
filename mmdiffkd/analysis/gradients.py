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
from mmdiffkd.utils.progress import track

#: Columns of :func:`~.tables.table` for what :func:`compare` found.
COLUMNS = [
    ('grad_steps', '{grad_steps}'),
    ("student's gradient: cosine", '{student[cosine]:.3f}'),
    ('length', '{student[length]:.3f}'),
    ("denoiser's: cosine", '{denoiser[cosine]:.3f}'),
    ('length', '{denoiser[length]:.3f}'),
]


def _necks(model: Distiller) -> list[DiffKDNeck]:
    return [m for m in model.modules() if isinstance(m, DiffKDNeck)]


def _gradients(
    model: Distiller, data: dict, grad_steps: int | None
) -> tuple[Tensor, Tensor]:
    """The distances' gradients of student and denoisers, a vector each."""
    model = deepcopy(model)
    necks = _necks(model)
    for neck in necks:
        if grad_steps is not None:
            neck.sampler.grad_steps = grad_steps
    with torch.random.fork_rng():
        # The student's own randomness, dropout say, is the same each time.
        torch.manual_seed(0)
        losses = model.loss(data['inputs'], data['data_samples'])
    student = list(model.student.parameters())
    denoisers = [p for neck in necks for p in neck.denoiser.parameters()]
    found = torch.autograd.grad(
        sum(v for k, v in losses.items() if k.endswith('.loss_kd')),
        student + denoisers,
        allow_unused=True,
        materialize_grads=True,
    )
    flat = [gradient.flatten() for gradient in found]
    return torch.cat(flat[: len(student)]), torch.cat(flat[len(student) :])


def _nearness(part: Tensor, whole: Tensor) -> tuple[float, float]:
    cosine = torch.cosine_similarity(part, whole, dim=0)
    return cosine.item(), (part.norm() / whole.norm()).item()


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
    steps = [len(neck.sampler.timesteps) for neck in _necks(model)]
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
    found = {grad_steps: [] for grad_steps in range(1, max(steps) + 1)}
    for batch in track(
        islice(loader, batches),
        'Comparison of the gradients',
        total=min(batches, len(loader)),
    ):
        data = model.data_preprocessor(batch, True)
        whole = _gradients(model, data, None)
        for grad_steps, rows in found.items():
            part = _gradients(model, data, grad_steps)
            rows.append(list(map(_nearness, part, whole)))
    means = {k: torch.tensor(v).mean(dim=0).tolist() for k, v in found.items()}
    return [
        {
            'grad_steps': grad_steps,
            'student': dict(zip(('cosine', 'length'), student)),
            'denoiser': dict(zip(('cosine', 'length'), denoiser)),
        }
        for grad_steps, (student, denoiser) in means.items()
    ]
