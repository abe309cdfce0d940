"""Hooks and loops that mean another teacher than a distiller's."""

from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner

#: By name, since other packages have copies: mmdet's and mmrazor's.
_CLASSES = {
    'MeanTeacherHook',
    'SingleTeacherDistillValLoop',
    'TeacherStudentValLoop',
}
#: A method, and a name in it that belongs to semi-supervised models.
_NAMES = {'momentum_update': 'teacher', 'run': 'semi_test_cfg'}


def check_other_teachers(runner: Runner) -> None:
    """Refuse hooks and loops of models that hold a teacher of their own.

    They find ``model.student`` and ``model.teacher`` in a distiller, too. A
    moving average of the student would change nothing in the frozen teacher,
    and a loop would fail at the first validation.

    Args:
        runner (Runner): A runner whose model is a distiller.

    Raises:
        ValueError: If there is one; names the key, and says what to write.
    """
    parts = [('custom_hooks', hook) for hook in runner.hooks]
    parts += [('val_cfg', runner._val_loop), ('test_cfg', runner._test_loop)]
    for key, part in parts:
        if isinstance(part, Hook | BaseLoop) and _means_another(part):
            cure = (
                'Leave it out.'
                if key == 'custom_hooks'
                else f'Write {key}=dict(_delete_=True) for the usual loop.'
            )
            raise ValueError(
                f'`{key}` has a {type(part).__name__}, which belongs to a '
                'model whose student and teacher are trained together '
                f"(semi-supervised, or mmrazor's). {cure} A distiller's "
                'teacher is frozen, and DistillHook evaluates it.'
            )


def _means_another(part: Hook | BaseLoop) -> bool:
    if _CLASSES & {cls.__name__ for cls in type(part).__mro__}:
        return True
    for method, name in _NAMES.items():
        function = getattr(type(part), method, None)
        code = getattr(function, '__code__', None)
        if code is not None and name in (*code.co_names, *code.co_consts):
            return True
    return False
