import tiny_recipes
from mmengine.config import Config

from mmdiffkd.analysis.taps import known, yielded
from mmdiffkd.models.distillers.known_taps import TABLE
from mmdiffkd.utils import load_config


def test_every_row_is_there():
    for part, rows in TABLE.items():
        headings, *shown = known(part)
        assert len(shown) == len(rows)
        for row, cells in zip(rows, shown):
            assert len(cells) == len(headings)
            for word in row.classes.split():
                assert f'`{word}`' in cells[0]


def test_columns():
    headings, *rows = known('backbone')
    assert headings == ['class', 'last map', 'pyramid', 'logits', 'why not']
    by_class = {row[0]: row[1:] for row in rows}
    assert by_class['`VGG`'] == ['`features.-1`', '', '`classifier`', '']
    gap = '`ConvNeXt`, `EdgeNeXt`, `HorNet` with `gap_before_final_norm=True`'
    assert by_class[gap] == ['`stages.-1`', '`stages.*`', '', '']
    headings, *rows = known('neck')
    assert headings == ['class', 'pyramid', 'why not']
    assert ['`ChannelMapper` with `convs.1`', '`[:]`', ''] in rows
    headings, *rows = known('head')
    assert headings == ['class', 'logits', 'boxes', 'why not']
    assert ['`BBoxHead`', '`fc_cls`', '`fc_reg`', ''] in rows
    headings, *rows = known('model')
    assert headings == ['class', 'last map', 'pyramid', 'logits']


def cells(table):
    return [
        [cell.strip() for cell in line.split('|')[1:-1]]
        for line in table.splitlines()[2:]
    ]


def test_what_a_recipe_yields():
    config = Config(
        dict(model=tiny_recipes.classifier(), default_scope='mmpretrain')
    )
    expected = [
        ['last_map', 'backbone[-1]', '(2, 16, 56, 56)'],
        ['pyramid', 'backbone.layer1', '(2, 4, 224, 224)'],
        ['pyramid', 'backbone.layer2', '(2, 8, 112, 112)'],
        ['pyramid', 'backbone.layer3', '(2, 16, 56, 56)'],
        ['logits', 'head.fc', '(2, 2)'],
        ['boxes', '-', ''],
        ['auxiliary', '-', ''],
    ]
    assert cells(yielded(config)) == expected
    config.model = tiny_recipes.distiller()
    assert cells(yielded(config)) == expected


def test_what_there_is_not():
    config = load_config('mmdet::detr/detr_r50_8xb2-150e_coco.py')
    assert cells(yielded(config)) == [
        ['last_map', 'backbone[-1]', '(2, 2048, 8, 8)'],
        ['pyramid', '-', ''],
        ['logits', '-', ''],
        ['boxes', '-', ''],
        ['auxiliary', '-', ''],
    ]
