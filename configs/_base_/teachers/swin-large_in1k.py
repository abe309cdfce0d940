# Teacher: mmpretrain's Swin-L, pretrained on ImageNet-21k, 86.24 top-1.
teacher = dict(
    config='mmpretrain::swin_transformer/swin-large_16xb64_in1k.py',
    checkpoint='https://mmassets.onedl.ai/mmclassification/v0/swin-transformer/convert/swin_large_patch4_window7_224_22kto1k-5f0996db.pth',
)
