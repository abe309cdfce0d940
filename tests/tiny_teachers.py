"""Small teachers, and checkpoints of them."""

import tiny_recipes
import torch

from mmdiffkd.models.distillers import FrozenTeacher

FAST = dict(fold_batch_norm=True, channels_last=True)
PLAIN = dict(fold_batch_norm=False, channels_last=False)
TAPS = ['backbone[-1]', 'head.fc']


def frozen(**changes):
    """The tiny teacher, without weights."""
    return FrozenTeacher(**tiny_recipes.teacher(**changes))


def build_teacher(taps=TAPS, size=(16, 16), **settings):
    teacher = FrozenTeacher(**settings)
    teacher.attach(taps, (3, *size))
    teacher.init_weights()
    return teacher


def saved(tmp_path, content):
    path = tmp_path / 'teacher.pth'
    torch.save(content, path)
    return str(path)


def with_statistics(network):
    """Norms as after training: far from identities."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.3)
    return network.state_dict()
