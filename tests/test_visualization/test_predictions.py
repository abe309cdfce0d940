import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample

from mmdiffkd.visualization import predictions_panel
from mmdiffkd.visualization.predictions import enlarge, image_of


def test_what_is_drawn_grows_with_the_image():
    boxes = torch.tensor([[1.0, 2.0, 3.0, 5.0]])
    found = DetDataSample(pred_instances=InstanceData(bboxes=boxes))
    large = enlarge(found, 2).pred_instances.bboxes
    assert large.tolist() == [[2.0, 4.0, 6.0, 10.0]]
    assert found.pred_instances.bboxes.tolist() == boxes.tolist()

    labels = torch.arange(6).reshape(1, 2, 3)
    found = SegDataSample(pred_sem_seg=PixelData(data=labels))
    large = enlarge(found, 2).pred_sem_seg.data
    assert (large[0] == labels[0].kron(torch.ones(2, 2).long())).all()
    assert found.pred_sem_seg.shape == (2, 3)


def test_pictures_are_red_green_blue():
    inputs = torch.arange(3, dtype=torch.uint8).expand(4, 5, 3)
    image = image_of({'inputs': inputs.permute(2, 0, 1)})
    assert image.shape == (4, 5, 3)
    assert (image[0, 0] == np.array([2, 1, 0])).all()


class Visualizer:
    """Paints nothing: notes what it is given."""

    def __init__(self):
        self.calls = []

    def add_datasample(self, name, image, sample, **options):
        self.image = image
        self.calls.append((sample, options))

    def get_image(self):
        return self.image


def test_annotations_and_predictions():
    sample = {
        'inputs': torch.zeros(3, 4, 6, dtype=torch.uint8),
        'data_samples': SegDataSample(
            gt_sem_seg=PixelData(data=torch.zeros(1, 4, 6))
        ),
    }
    found = SegDataSample(pred_sem_seg=PixelData(data=torch.ones(1, 4, 6)))
    visualizer = Visualizer()
    panel = predictions_panel(
        visualizer,
        [sample],
        {'there': None, 'found': [found]},
        enlarged=2,
        with_labels=False,
    )
    assert panel.dtype == np.uint8 and panel.shape[1] > 2 * 12
    (there, first), (seen, second) = visualizer.calls
    assert visualizer.image.shape == (8, 12, 3)
    assert there.gt_sem_seg.shape == seen.pred_sem_seg.shape == (8, 12)
    assert first == dict(draw_gt=True, draw_pred=False, with_labels=False)
    assert second == dict(draw_gt=False, draw_pred=True, with_labels=False)
