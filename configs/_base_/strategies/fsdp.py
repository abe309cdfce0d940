# Spreads student and necks over the processes; the teacher stays whole on
# each. A second base beside a recipe: docs/scaling.md.
runner_type = 'FlexibleRunner'
strategy = dict(type='mmdiffkd.FSDPStrategy')
