"""Two gloo processes that distil one batch, half of it each.

Run by ``test_two_processes.py``: ``python two_processes.py FOLDER RANK WORLD``
writes ``FOLDER/<WORLD>_<RANK>.pt``. A world of one takes the whole batch.
"""

import sys
from pathlib import Path

import tiny_recipes
import torch
import torch.distributed as dist
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import DefaultScope
from mmpretrain.structures import DataSample
from torch import nn

from mmdiffkd.models.necks import DiffKDNeck
from mmdiffkd.registry import MODELS

BATCH, STEPS, SIZE = 8, 20, tiny_recipes.SIZE


def share(tensor, rank, world):
    """A process's part of what the whole batch has."""
    return tensor.chunk(world)[rank]


@MODELS.register_module()
class HandedNoiseNeck(DiffKDNeck):
    """Draws for the whole batch and takes its share of it."""

    rank, world, step = 0, 1, 0

    def draw(self, student, teacher, generator=None):
        whole = teacher.repeat(self.world, 1, 1, 1)
        generator = torch.Generator().manual_seed(self.step)
        self.step += 1
        drawn = super().draw(whole, whole, generator)
        return {k: share(v, self.rank, self.world) for k, v in drawn.items()}


def group_norm(module):
    """Replace batch norm, whose statistics are those of one process."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, nn.GroupNorm(1, child.num_features))
        group_norm(child)


def build(neck='HandedNoiseNeck', task=None, **entry):
    feature = dict(
        at='backbone[-1]',
        neck=dict(type=neck, latent_channels=8),
        loss=dict(type='MSELoss', loss_weight=2.0),
        **entry,
    )
    config = tiny_recipes.distiller(
        tiny_recipes.classifier(norm_cfg=dict(type='GN', num_groups=1)),
        distill=dict(feature=feature),
        **(task or {}),
    )
    torch.manual_seed(0)
    model = MMENGINE_MODELS.build(config)
    model.init_weights()
    group_norm(model.distill)
    return model.double().train()


def batch(rank, world, step):
    generator = torch.Generator().manual_seed(100 + step)
    images = torch.randn(BATCH, 3, SIZE, SIZE, generator=generator).double()
    labels = torch.randint(2, (BATCH,), generator=generator)
    samples = [
        DataSample().set_gt_label(int(label))
        for label in share(labels, rank, world)
    ]
    return share(images, rank, world), samples


def train(model, rank, world, steps=STEPS):
    """Losses (the task's, the distance, all) and first gradients."""
    # (Nothing is found unused: that is what DDP's default demands.)
    if world > 1:
        model = MMDistributedDataParallel(model, broadcast_buffers=False)
    inner = getattr(model, 'module', model)
    parameters = dict(inner.named_parameters())
    optimizer = torch.optim.SGD(parameters.values(), lr=0.05, momentum=0.9)
    losses, gradients = [], {}
    for step in range(steps):
        inner.set_progress(0, step)
        values = model(*batch(rank, world, step), mode='loss')
        optimizer.zero_grad()
        total = inner.parse_losses(values)[0]
        total.backward()
        if step == 0:
            gradients = {k: p.grad.clone() for k, p in parameters.items()}
        optimizer.step()
        distance = values['distill.feature.loss_kd']
        task = values['loss'] if 'loss' in values else values['loss_task']
        losses.append(torch.stack([task, distance, total]).detach())
    logged = model._get_ddp_logging_data() if world > 1 else {}
    return dict(
        losses=torch.stack(losses),
        gradients=gradients,
        ddp_bytes=logged.get('total_parameter_size_bytes'),
        own_bytes=sum(p.numel() * 8 for p in parameters.values()),
    )


def main(folder: Path, rank: int, world: int) -> None:
    if world > 1:
        dist.init_process_group(
            'gloo',
            init_method=f'file://{folder}/store',
            rank=rank,
            world_size=world,
        )
    HandedNoiseNeck.rank, HandedNoiseNeck.world = rank, world
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        found = train(build(), rank, world)
        if world > 1:
            off = dict(weight=0.0)
            stopped = dict(schedule=dict(stop=1, by_epoch=False))
            found['off'] = train(build(**off), rank, world, 3)['losses']
            found['stopped'] = train(build(**stopped), rank, world, 3)[
                'losses'
            ]
            without = dict(task_weight=0)
            ended = dict(task_schedule=dict(stop=1, by_epoch=False))
            begun = dict(task_schedule=dict(start=1, by_epoch=False))
            tasks = {'without task': without, 'ended': ended, 'begun': begun}
            for name, task in tasks.items():
                found[name] = train(build(task=task), rank, world, 3)['losses']
            plain = build('DiffKDNeck')
            neck = plain.distill.feature.necks[0]
            feature = torch.zeros(2, 24, 4, 4).double()
            found['drawn'] = plain.distill.feature._draw(
                neck, (feature, feature), plain._next_seed()
            )
    torch.save(found, folder / f'{world}_{rank}.pt')
    if world > 1:
        dist.barrier()
        dist.destroy_process_group()


if __name__ == '__main__':
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
