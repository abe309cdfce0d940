_base_ = './deeplabv3-r18_8xb2-40k_cityscapes-512x1024.py'

model = dict(pretrained=None)
