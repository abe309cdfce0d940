"""What the command lines in ``tools/`` do, importable.

Costs, timing, comparisons over several seeds, similarity and compatibility.
Nothing else in the package imports this folder.
"""
