"""Groups of parameters that several algorithms share, one a module.

Each has ``declare(algorithm, …)``, where something can be wrong ``problem(values, …)`` (a sentence on what cannot work,
or nothing), and ``read(values, …)``, which returns the option group of the job.
"""
