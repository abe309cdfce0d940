import pytest
import tiny_recipes
from mmdet.engine.hooks import MeanTeacherHook
from mmdet.engine.runner import TeacherStudentValLoop
from mmengine.hooks import Hook
from mmengine.registry import LOOPS
from mmengine.runner import ValLoop


class Averaging(Hook):
    """Somebody's own."""

    def before_train(self, runner):
        self.momentum_update(runner.model)

    def momentum_update(self, model):
        pairs = zip(model.student.parameters(), model.teacher.parameters())
        for student, teacher in pairs:
            teacher.data.lerp_(student.data, 0.1)


class Derived(MeanTeacherHook):
    pass


class SemiValLoop(ValLoop):
    def run(self):
        self.runner.model.semi_test_cfg['predict_on'] = 'student'


class Reporting(Hook):
    """It reads the distiller's teacher, and may."""

    def before_train(self, runner):
        self.checkpoint = runner.model.teacher.checkpoint


def train(folder, *hooks, **changes):
    config = tiny_recipes.distill_recipe(folder, epochs=1, **changes)
    return tiny_recipes.train(config, *hooks)


@pytest.mark.parametrize('hook', [MeanTeacherHook(), Derived(), Averaging()])
def test_averages_of_the_student_are_refused(hook, tmp_path):
    message = f'custom_hooks. has a {type(hook).__name__}.* Leave it out'
    with pytest.raises(ValueError, match=message):
        train(tmp_path, hook)
    assert not (tmp_path / 'work/epoch_1.pth').exists()


@pytest.mark.parametrize('loop', [TeacherStudentValLoop, SemiValLoop])
def test_loops_of_semi_supervised_models_are_refused(
    loop, tmp_path, monkeypatch
):
    if loop is SemiValLoop:
        monkeypatch.setitem(LOOPS._module_dict, 'SemiValLoop', loop)
    message = f'val_cfg. has a {loop.__name__}.*_delete_=True'
    with pytest.raises(ValueError, match=message):
        train(tmp_path, val_cfg=dict(type=loop))
    assert not (tmp_path / 'work/epoch_1.pth').exists()


def test_other_hooks_may_read_the_teacher(tmp_path):
    hook = Reporting()
    train(tmp_path, hook)
    assert hook.checkpoint is None
