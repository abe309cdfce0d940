import subprocess
import sys
from contextlib import nullcontext, suppress
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_recipes
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModule
from mmengine.runner import CheckpointLoader, load_checkpoint
from mmengine.runner import checkpoint as mmengine_checkpoint
from safetensors.torch import save_file
from tiny_recipes import make_runner, with_distill_lines
from tiny_teachers import PLAIN

from mmdiffkd.utils import download
from mmdiffkd.utils.command_line import build_runner
from mmdiffkd.utils.safe_loader import (
    SafeLoader,
    guard_checkpoints,
    guard_run,
)


class Attack:
    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return open, (str(self.victim), 'w')


@pytest.fixture(autouse=True)
def own_loader(monkeypatch):
    """Each test begins with MMEngine's loader, and leaves what was there."""
    current = CheckpointLoader.load_checkpoint
    original = getattr(current, 'original', current)
    monkeypatch.setattr(CheckpointLoader, 'load_checkpoint', original)
    # Half of a runner's start is the formatting of its config.
    monkeypatch.setattr(Config, 'pretty_text', '')


@pytest.fixture
def attack(tmp_path):
    """A checkpoint that would create a file, and that file."""
    path, victim = tmp_path / 'attack.pth', tmp_path / 'victim'
    torch.save(dict(state_dict={}, more=Attack(victim)), path)
    return path, victim


# Five ways to a checkpoint


def by_teacher(path, trusted):
    teacher = tiny_recipes.teacher(checkpoint=path, trusted=trusted, **PLAIN)
    return dict(model=tiny_recipes.distiller(teacher=teacher))


def by_student(path, trusted):
    student = dict(tiny_recipes.classifier(), pretrained=path)
    return dict(model=tiny_recipes.distiller(student), trusted=trusted)


def by_init_cfg(path, trusted):
    init_cfg = dict(type='Pretrained', checkpoint=path)
    student = tiny_recipes.classifier(init_cfg=init_cfg)
    return dict(model=tiny_recipes.distiller(student), trusted=trusted)


def by_load_from(path, trusted):
    return dict(
        model=tiny_recipes.distiller(), load_from=path, trusted=trusted
    )


def by_resume(path, trusted):
    return dict(by_load_from(path, trusted), resume=True)


every_way = pytest.mark.parametrize(
    'way', [by_teacher, by_student, by_load_from, by_resume, by_init_cfg]
)


def recipe(tmp_path, **changes):
    """A recipe that only loads."""
    return tiny_recipes.recipe(
        tmp_path, epochs=0, images=2, batch_size=2, **changes
    )


@every_way
def test_code_in_a_checkpoint_is_not_run(tmp_path, attack, way):
    path, victim = attack
    config = recipe(tmp_path, **way(str(path), False))
    runner = make_runner(config, build=build_runner)
    message = r'attack.pth.* holds a .*open.*`trusted=True`'
    with pytest.raises(ValueError, match=message):
        runner.train()
    assert not victim.exists()


@pytest.mark.parametrize(
    'way',
    [
        by_teacher,
        *(
            pytest.param(way, marks=pytest.mark.slow)
            for way in (by_student, by_load_from, by_resume, by_init_cfg)
        ),
    ],
)
def test_code_in_a_trusted_checkpoint_is_run(tmp_path, attack, way):
    """So that the test before this one sees something."""
    path, victim = attack
    config = recipe(tmp_path, **way(str(path), True))
    runner = make_runner(config, build=build_runner)
    # It gets as far as such a file lets it.
    with suppress(Exception):
        runner.train()
    assert victim.exists()


@every_way
@pytest.mark.parametrize('hook', [True, False])
def test_runs_of_other_tools_are_guarded(tmp_path, attack, way, hook):
    path, victim = attack
    config = with_distill_lines(
        recipe(tmp_path, **way(str(path), trusted=False))
    )
    if not hook:
        config.default_hooks.pop('distill')
        config.default_hooks.pop('checkpoint')
    runner = make_runner(config)
    with pytest.raises(ValueError, match=r'attack.pth.* holds a .*open'):
        runner.train()
    assert not victim.exists()


@pytest.mark.parametrize('trusted', [False, True])
@pytest.mark.parametrize('phase', ['train', 'val'])
def test_the_hook_knows_what_is_trusted(tmp_path, attack, phase, trusted):
    path, victim = attack
    config = recipe(tmp_path, **by_load_from(str(path), trusted))
    runner = make_runner(with_distill_lines(config))
    with nullcontext() if trusted else pytest.raises(ValueError, match='open'):
        getattr(runner, phase)()
    assert victim.exists() == trusted


def test_building_a_distiller_leaves_mmengine_alone(build):
    before = CheckpointLoader.load_checkpoint
    model = build(tiny_recipes.distiller())
    assert CheckpointLoader.load_checkpoint == before
    model.init_weights()
    loader = CheckpointLoader.load_checkpoint
    assert isinstance(loader, SafeLoader) and not loader.trusted
    model.init_weights()
    assert CheckpointLoader.load_checkpoint is loader


@pytest.mark.parametrize('trusted', [False, True])
def test_config_in_a_checkpoint_is_not_run(tmp_path, trusted):
    victim = tmp_path / 'victim'
    config = tiny_recipes.distill_recipe(
        tmp_path, epochs=1, images=2, batch_size=2
    )
    make_runner(config, build=build_runner).train()
    path = tmp_path / 'work/epoch_1.pth'
    checkpoint = torch.load(path, weights_only=False)
    checkpoint['meta']['config'] = f'victim = open({str(victim)!r}, "w")'
    torch.save(checkpoint, path)
    config.update(load_from=str(path), resume=True, trusted=trusted)
    with suppress(Exception):
        make_runner(config, build=build_runner).train()
    assert victim.exists() == trusted


# The loader, on this MMEngine and on one that reads as 0.10.7 does


def stand_in(tmp_path):
    """MMEngine's module with a loader of each kind, none of them careful."""
    module = SimpleNamespace()

    def load_from_http(filename, map_location=None, model_dir=None):
        raise AssertionError('the URL was opened by MMEngine')

    def load_from_local(filename, map_location):
        return torch.load(filename, map_location, weights_only=False)

    def load_from_table(filename, map_location=None):
        url = 'http://example.org/net.pth'
        return module.load_from_http(url, map_location=map_location)

    def load_from_store(filename, map_location=None):
        path = tmp_path / filename.removeprefix('s3://')
        with open(path, 'rb') as buffer:
            return torch.load(buffer, map_location, weights_only=False)

    class Loader:
        @classmethod
        def load_checkpoint(
            cls, filename, map_location=None, logger='current'
        ):
            scheme = filename.partition('://')[0]
            load = dict(
                http=load_from_http,
                https=load_from_http,
                torchvision=load_from_table,
                s3=load_from_store,
            ).get(scheme, load_from_local)
            return load(filename, map_location)

    module.CheckpointLoader = Loader
    module.load_from_http = load_from_http
    return module


@pytest.fixture(params=['installed', '0.10.7'])
def module(request, tmp_path, monkeypatch):
    def fetched(url, digest):
        assert url == 'https://example.org/net.pth' and not digest
        return tmp_path / 'attack.pth'

    monkeypatch.setattr(download, '_cached', fetched)
    if request.param == 'installed':
        monkeypatch.setattr(
            mmengine_checkpoint,
            'get_torchvision_models',
            lambda: {'net': 'http://example.org/net.pth'},
        )
        monkeypatch.setattr(
            mmengine_checkpoint,
            'get_file_backend',
            lambda *args, **kwargs: SimpleNamespace(
                get=lambda name: (tmp_path / name[5:]).read_bytes()
            ),
        )
        return mmengine_checkpoint
    return stand_in(tmp_path)


NAMES = [
    '{folder}/attack.pth',
    'http://example.org/net.pth',
    'https://example.org/net.pth',
    'torchvision://net',
    's3://attack.pth',
]


@pytest.mark.parametrize('name', NAMES)
def test_every_scheme_is_read_safely(module, attack, tmp_path, name):
    _, victim = attack
    name = name.format(folder=tmp_path)
    load, original = torch.load, module.load_from_http
    guard_checkpoints(module=module)
    with pytest.raises(ValueError, match='holds a .*open'):
        module.CheckpointLoader.load_checkpoint(name)
    assert not victim.exists()
    guard_checkpoints(trusted=True, module=module)
    module.CheckpointLoader.load_checkpoint(name, map_location='cpu')
    assert victim.exists()
    # What was replaced for a moment is back.
    assert torch.load is load and module.load_from_http is original


@pytest.mark.parametrize('name', NAMES)
def test_what_mmengine_writes_is_read(module, tmp_path, name):
    content = dict(
        history=HistoryBuffer([1.0, 2.0], [1, 1]),
        score=np.float64(3.5),
        state=np.random.get_state()[1],
        tensor=torch.ones(2),
    )
    torch.save(content, tmp_path / 'attack.pth')
    guard_checkpoints(module=module)
    load = module.CheckpointLoader.load_checkpoint
    read = load(name.format(folder=tmp_path), 'cpu', logger='silent')
    assert read['history'].mean() == 1.5 and read['score'] == 3.5
    assert (read['state'] == content['state']).all()
    meta = load(name.format(folder=tmp_path), map_location='meta')
    assert meta['tensor'].is_meta


@pytest.mark.parametrize('name', NAMES)
def test_safetensors_are_read(module, tmp_path, name):
    weights = dict(a=torch.ones(2))
    save_file(weights, tmp_path / 'attack.pth')
    guard_checkpoints(module=module)
    load = module.CheckpointLoader.load_checkpoint
    read = load(name.format(folder=tmp_path), 'cpu', logger='silent')
    assert torch.equal(read['state_dict']['a'], weights['a'])
    meta = load(name.format(folder=tmp_path), map_location='meta')
    assert meta['state_dict']['a'].is_meta


@pytest.mark.parametrize(
    'way', [by_teacher, by_student, by_load_from, by_init_cfg]
)
def test_a_run_takes_safetensors(tmp_path, build, way):
    path = tmp_path / 'net.safetensors'
    base = 6 if way is by_teacher else 4
    source = build(tiny_recipes.classifier(base))
    # Of a part: its names begin without `backbone.`.
    part = source.backbone if way is by_init_cfg else source
    save_file(part.state_dict(), path)
    config = recipe(tmp_path, **way(str(path), False))
    runner = make_runner(config, build=build_runner)
    runner.train()
    found = runner.model.student
    if way is by_teacher:
        found = runner.model.teacher.network
    expected = source.backbone.state_dict()
    for key, tensor in found.backbone.state_dict().items():
        assert torch.equal(tensor, expected[key]), key


@pytest.mark.parametrize('model', ['distiller', 'classifier'])
def test_no_run_resumes_from_safetensors(tmp_path, model):
    path = str(tmp_path / 'epoch_1.pth')
    save_file(dict(a=torch.ones(2)), path)
    model = getattr(tiny_recipes, model)()
    config = recipe(tmp_path, model=model, load_from=path, resume=True)
    with pytest.raises(ValueError, match=r'epoch_1\.pth.*not the state of'):
        build_runner(config)


def test_functions_that_others_imported_before_are_guarded(attack):
    path, victim = attack
    guard_checkpoints()
    with pytest.raises(ValueError, match='holds a .*open'):
        load_checkpoint(torch.nn.Linear(1, 1), str(path))
    init_cfg = dict(type='Pretrained', checkpoint=str(path), prefix='a')
    with pytest.raises(ValueError, match='holds a .*open'):
        BaseModule(init_cfg).init_weights()
    assert not victim.exists()


def test_what_others_allowed_does_not_count(attack):
    path, victim = attack
    guard_checkpoints()
    with torch.serialization.safe_globals([(open, '_io.open'), getattr]):
        before = torch.serialization.get_safe_globals()
        with pytest.raises(ValueError, match='holds a .*open'):
            CheckpointLoader.load_checkpoint(str(path))
        assert set(torch.serialization.get_safe_globals()) == set(before)
    assert not victim.exists()


def test_guard_holds_and_keeps_its_trust():
    guard_checkpoints()
    loader = CheckpointLoader.load_checkpoint
    assert isinstance(loader, SafeLoader) and not loader.trusted
    guard_checkpoints(trusted=True)
    guard_checkpoints()
    assert CheckpointLoader.load_checkpoint is loader and loader.trusted
    guard_run(Config(dict()))
    assert not loader.trusted
    with pytest.raises(ValueError, match="`trusted` is 'False'"):
        guard_run(Config(dict(trusted='False')))


def test_sha256_belongs_to_files_and_urls(tmp_path):
    torch.save({}, tmp_path / 'file.pth')
    guard_checkpoints()
    for name, message in (
        (f'{tmp_path}/file.pth', 'not the file that was meant'),
        ('torchvision://resnet50', 'belongs to a file or an https URL'),
    ):
        with pytest.raises(ValueError, match=message):
            CheckpointLoader.load_checkpoint(f'{name}#sha256={"0" * 64}')


@pytest.mark.parametrize(
    'kind', ['DeepSpeedStrategy', 'mmengine.DeepSpeedStrategy']
)
def test_engine_that_unpickles_by_itself_has_to_be_trusted(kind):
    config = Config(dict(strategy=dict(type=kind)))
    guard_run(config)
    config.resume = True
    with pytest.raises(ValueError, match='DeepSpeedStrategy.*trusted=True'):
        guard_run(config)
    config.trusted = True
    guard_run(config)
    guard_run(Config(dict(strategy=dict(type='FSDPStrategy'), resume=True)))


# No network


OFFLINE = """
import pkgutil, sys
from importlib import import_module

def refuse(event, arguments):
    if event.startswith(('socket.connect', 'socket.getaddrinfo', 'urllib')):
        raise SystemExit(f'{event} {arguments}')

sys.addaudithook(refuse)
import mmdiffkd
for module in pkgutil.walk_packages(mmdiffkd.__path__, 'mmdiffkd.'):
    import_module(module.name)

import tiny_recipes
from mmengine.registry import MODELS
url = 'https://example.org/net.pth'
students = [dict(type='Pretrained', checkpoint=name)
            for name in (url, 'torchvision://resnet50')]
for init_cfg in students:
    student = tiny_recipes.classifier(init_cfg=init_cfg)
    teacher = dict(model=student, default_scope='mmpretrain')
    model = MODELS.build(tiny_recipes.distiller(
        student, teacher=dict(config=teacher, checkpoint=url)))
    print('built')
model.init_weights()
"""


@pytest.mark.slow
def test_nothing_is_fetched_before_weights_are_needed(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    monkeypatch.setenv('PYTHONPATH', 'tests')
    run = subprocess.run(
        [sys.executable, '-c', OFFLINE], capture_output=True, text=True
    )
    assert run.stdout.count('built\n') == 2, run.stderr
    # It would have been seen.
    assert 'resnet50' in run.stderr.splitlines()[-1]
