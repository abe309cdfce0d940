"""Networks that already hold a student or a teacher."""

from torch import nn


def check_student(network: nn.Module) -> None:
    """Refuse students that a distiller cannot train as a whole.

    Args:
        network (nn.Module): The student.

    Raises:
        ValueError: If it holds a student and a teacher of its own, or a
            teacher outside of its modules, or has a module whose name the
            distiller needs.
    """
    name = type(network).__name__
    if _holds_both(network):
        raise ValueError(
            f'`student` is a {name}, which holds a student and a teacher of '
            'its own. What looks for `model.student` or `model.teacher` in '
            "training would find the distiller's. Give the network inside, "
            'for instance student=_base_.model.detector, with data, hooks '
            'and loops of a plain recipe.'
        )
    outside = [
        key
        for key, value in vars(network).items()
        if key.startswith('teacher') and isinstance(value, nn.Module)
    ]
    if outside:
        raise ValueError(
            f'`student` is a {name}, which has a teacher of its own '
            f'(`{outside[0]}`) outside of its modules: inside a distiller it '
            'would not follow to the GPU. Take the recipe of the network '
            'without that teacher (GFL for LD, PAA for LAD), and let the '
            'distiller teach it, by LDLoss for instance.'
        )
    if hasattr(network, 'distill'):
        raise ValueError(
            f'the student {name} has a top-level module called `distill`, the '
            'name under which checkpoints keep what distillation trains. '
            'Rename that module.'
        )


def check_teacher(network: nn.Module, key: str) -> None:
    """Refuse a teacher of which it is not certain what teaches.

    Args:
        network (nn.Module): The teacher.
        key (str): Where it is given in the config, for messages.

    Raises:
        ValueError: If it holds a student and a teacher of its own.
    """
    if _holds_both(network):
        raise ValueError(
            f'`{key}` is that of a {type(network).__name__}, which '
            'holds a student and a teacher of its own. Give the config of '
            'the network inside, dict(model=<its `model.detector`>, ...), '
            'and a checkpoint of the weights below `teacher.`, which '
            'docs/faq.md shows how to write.'
        )


def check_apart(student: nn.Module, teacher: nn.Module, key: str) -> None:
    """Refuse a teacher of which parts are the student's.

    They would be frozen with it, and never learn.

    Args:
        student (nn.Module): The student.
        teacher (nn.Module): A built network.
        key (str): Where it is given, for messages.

    Raises:
        ValueError: If they have a parameter in common.
    """
    learned = {*student.parameters()}
    for name, parameter in teacher.named_parameters():
        if parameter in learned:
            raise ValueError(
                f'`{key}` is a built {type(teacher).__name__}, whose '
                f"parameter {name!r} is the student's, too. A teacher is "
                'frozen, so that the student would not learn there. Give a '
                'copy by copy.deepcopy().'
            )


def _holds_both(network: nn.Module) -> bool:
    return all(
        isinstance(getattr(network, name, None), nn.Module)
        for name in ('student', 'teacher')
    )
