"""Real processes that work on one table at once, and real processes that are killed.

``processes``
    starts them, from one that has done nothing yet: some meet at barriers, others are killed.
``worker``
    the program that they run.
``crashpoints``
    a process counts what it does to the file system, and kills itself before the n-th.
``places``
    a local disk and any S3 server, with what these tests need on top.
``raw``
    a table read by zarr-python and nothing of ours.
``metadata``, ``rows``, ``columns``, ``resizing``
    scenarios of many processes at once; the part of each process beside the part that looks.
``operations``, ``copies``
    what is killed, what may be found afterwards, and how it is finished.
``kills``
    kills them, everywhere and at random moments.
``__main__``
    all of it, many times over: ``make stress``.
"""
