import json

from PIL import Image

from mmdiffkd.analysis.stock_data import PICTURES, write_data


def test_layouts(tmp_path):
    root = tmp_path / 'data'
    write_data(root)
    for split in ('train', 'val'):
        lines = (root / f'imagenet/meta/{split}.txt').read_text().splitlines()
        assert len(lines) == PICTURES
        for line in lines:
            name, label = line.split()
            assert (root / 'imagenet' / split / name).is_file()
            assert 0 <= int(label) < 1000
        file = root / f'coco/annotations/instances_{split}2017.json'
        coco = json.loads(file.read_text())
        assert len(coco['images']) == PICTURES
        assert len(coco['categories']) == 80
        for image in coco['images']:
            path = root / f'coco/{split}2017' / image['file_name']
            assert Image.open(path).size == (image['width'], image['height'])
        street = root / 'cityscapes'
        for index in range(PICTURES):
            stem = f'{split}/generated/{index}'
            image = street / f'leftImg8bit/{stem}_leftImg8bit.png'
            labels = street / f'gtFine/{stem}_gtFine_labelTrainIds.png'
            assert Image.open(image).size == Image.open(labels).size
    rooms = root / 'ade/ADEChallengeData2016'
    for kind in ('images', 'annotations'):
        for split in ('training', 'validation'):
            found = list((rooms / kind / split).iterdir())
            assert len(found) == PICTURES


def test_what_is_there_stays(tmp_path):
    root = tmp_path / 'data'
    root.mkdir()
    write_data(root)
    assert list(root.iterdir()) == []
