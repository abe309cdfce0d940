# Teacher: mmpretrain's ResNet-50 of "ResNet strikes back" (A1), 80.12 top-1.
teacher = dict(
    config='mmpretrain::resnet/resnet50_8xb256-rsb-a1-600e_in1k.py',
    checkpoint='https://mmassets.onedl.ai/mmclassification/v0/resnet/resnet50_8xb256-rsb-a1-600e_in1k_20211228-20e21305.pth',
)
