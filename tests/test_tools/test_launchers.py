import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from recipe_files import ROOT, write_recipe


@pytest.fixture
def fake(tmp_path):
    """A folder with a torchrun and an srun that print what they are told."""
    for name in ('torchrun', 'srun'):
        file = tmp_path / name
        file.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
        file.chmod(0o755)
    return tmp_path


def launch(fake, name, *arguments, **environment):
    result = subprocess.run(
        ['bash', ROOT / 'tools' / name, *arguments],
        capture_output=True,
        check=True,
        env={
            **os.environ,
            'PATH': f'{fake}:{os.environ["PATH"]}',
            **environment,
        },
        text=True,
    )
    return result.stdout.splitlines()


@pytest.mark.parametrize(
    ('name', 'arguments'),
    [
        ('dist_train.sh', ['a.py', '2']),
        ('dist_test.sh', ['a.py', 'a.pth', '2']),
    ],
)
def test_torchrun(fake, name, arguments):
    words = launch(fake, name, *arguments, '--work-dir', 'a b')
    tool = name.replace('dist_', '').replace('.sh', '.py')
    assert words == [
        '--nnodes=1',
        '--node_rank=0',
        '--master_addr=127.0.0.1',
        '--master_port=29500',
        '--nproc_per_node=2',
        f'{ROOT}/tools/{tool}',
        *arguments[:-1],
        *('--launcher', 'pytorch', '--work-dir', 'a b'),
    ]
    words = launch(
        fake,
        name,
        *arguments,
        NNODES='4',
        NODE_RANK='3',
        MASTER_ADDR='10.0.0.1',
        PORT='1234',
    )
    assert words[:4] == [
        '--nnodes=4',
        '--node_rank=3',
        '--master_addr=10.0.0.1',
        '--master_port=1234',
    ]


@pytest.mark.parametrize(
    ('name', 'own'),
    [
        ('slurm_train.sh', ['a.py', '--work-dir', 'there']),
        ('slurm_test.sh', ['a.py', 'there']),
    ],
)
def test_srun(fake, name, own):
    words = launch(
        fake,
        name,
        *('partition', 'job', 'a.py', 'there', '--amp'),
        GPUS='4',
        CPUS_PER_TASK='7',
        SRUN_ARGS='--quiet --time=1:00',
    )
    tool = name.replace('slurm_', '').replace('.sh', '.py')
    assert words == [
        '--partition=partition',
        '--job-name=job',
        '--gres=gpu:4',
        '--ntasks=4',
        '--ntasks-per-node=4',
        '--cpus-per-task=7',
        '--kill-on-bad-exit=1',
        '--quiet',
        '--time=1:00',
        *('python', '-u', f'{ROOT}/tools/{tool}'),
        *own,
        *('--launcher', 'slurm', '--amp'),
    ]


@pytest.mark.parametrize(
    'name', ['dist_train.sh', 'dist_test.sh', 'slurm_train.sh']
)
def test_too_few_arguments(name):
    result = subprocess.run(
        ['bash', ROOT / 'tools' / name, 'a.py'],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert result.stderr.startswith('usage:')


@pytest.mark.slow
def test_two_processes_train_one_model(tmp_path):
    recipe = write_recipe(tmp_path)
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    folder = Path(sys.executable).parent
    result = subprocess.run(
        [
            *('bash', ROOT / 'tools/dist_train.sh'),
            *(recipe / 'distiller.py', '2', '--work-dir', recipe / 'run'),
        ],
        cwd=tmp_path,
        capture_output=True,
        env={
            **os.environ,
            'PATH': f'{folder}:{os.environ["PATH"]}',
            'PORT': str(port),
            'CUDA_VISIBLE_DEVICES': '',
        },
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    checkpoint = torch.load(recipe / 'run/epoch_1.pth', weights_only=False)
    # Four images in batches of two on two processes.
    assert checkpoint['meta']['iter'] == 1
    assert not any('teacher' in key for key in checkpoint['state_dict'])
