"""Stand-ins for ``tools/train.py`` and ``tools/test.py``, and configs."""

from pathlib import Path

#: Logs what the real one logs, and counts its calls.
TRAIN = """
import json, sys
from pathlib import Path
folder = Path(sys.argv[sys.argv.index('--work-dir') + 1])
with open(folder.parent / 'calls', 'a') as calls:
    calls.write(' '.join(sys.argv[2:]) + chr(10))
options = dict(o.split('=') for o in sys.argv if '=' in o)
if options.get('crash') == 'True':
    print('about to crash')
    (folder / 'last_checkpoint').write_text('epoch_1.pth')
    sys.exit(3)
log = folder / '2026' / 'vis_data' / 'scalars.json'
log.parent.mkdir(parents=True)
seed = int(options['randomness.seed'])
for line in (
    {'loss': 2.0, 'time': 0.5, 'iter': 1, 'step': 1},
    {'loss': 1.0, 'time': 0.1, 'iter': 2, 'step': 2},
    {'loss': 1.0, 'time': 0.2, 'iter': 3, 'step': 3},
    {'accuracy/top1': 99.0, 'step': 1},
    {'accuracy/top1': 60.0 + seed, 'step': 2},
):
    with log.open('a') as file:
        file.write(json.dumps(line) + chr(10))
(folder / 'last_checkpoint').write_text(str(folder / 'epoch_2.pth'))
print('Epoch(val) [2][1/1]')
"""
#: Finds 20 less than the last validation, and counts its calls.
TEST = """
import json, sys
from pathlib import Path
folder = Path(sys.argv[2]).parent
with open(folder.parent / 'evaluations', 'a') as calls:
    calls.write(' '.join(sys.argv[2:]) + chr(10))
options = dict(o.split('=') for o in sys.argv if '=' in o)
out = Path(sys.argv[sys.argv.index('--out') + 1])
metrics = {'accuracy/top1': 40.0 + int(options['randomness.seed'])}
out.write_text(json.dumps(metrics))
"""
DATA = """
train_cfg = dict(by_epoch=True, max_epochs=2)
"""
PLAIN = "model = dict(type='A')" + DATA
DISTILLER = (
    "model = dict(type='B', teacher=dict(config='a', checkpoint='b'))" + DATA
)


def write_stand_ins(folder: Path) -> None:
    """Write ``train.py``, ``test.py``, ``plain.py`` and ``distiller.py``."""
    for name, text in (
        ('train.py', TRAIN),
        ('test.py', TEST),
        ('plain.py', PLAIN),
        ('distiller.py', DISTILLER),
    ):
        (folder / name).write_text(text)


def calls(folder: Path, kind: str = 'calls') -> list[str]:
    """The calls of ``train.py``, or ``'evaluations'``, of ``test.py``."""
    return (folder / kind).read_text().splitlines()
