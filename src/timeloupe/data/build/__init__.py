"""Training data made from videos by a labeller, and checked before anything is learnt from it.

::

    recipe.py     what is built, from what, by whom
    record.py     BuiltRow: one item of one stage, kept or not, with everything that was asked for it
    steps.py      what a stage may do: look at a video, ask the labeller
    stages/       one stage a file: a generator of looks and asks that ends with an outcome; nothing else
    labelling.py  plays stages over a batch of items: reads the views, asks, writes down
    ledger.py     the build folder: each item once, kills survived
    build.py      all stages over all items, in threads, within a budget

A stage never reads a video or talks to a model itself, so that it can be tested with plain values, and so that the same
stage runs in lockstep batches over a local model, in threads over a served one, and on a cluster (``engines.ray``).
"""
