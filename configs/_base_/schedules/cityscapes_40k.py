# SGD from 0.02 with momentum 0.9 and a polynomial decay (Sec. 4.3 of DiffKD).
# What the paper leaves open follows the code base of its first author: 40,000
# iterations, a total batch of 16, weight decay 5e-4, power 0.9 down to 1e-4.
# All but the rate is mmseg's schedule, too. That code base validates every
# 400 iterations and keeps the best; here it is every 4,000, and the last.
_base_ = 'mmseg::_base_/schedules/schedule_40k.py'

optimizer = dict(lr=0.02)
optim_wrapper = dict(optimizer=optimizer)
auto_scale_lr = dict(base_batch_size=16)
