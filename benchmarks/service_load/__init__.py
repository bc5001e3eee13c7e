"""How fast is the service under load, and how does it bend when there is too much?

    python -m benchmarks.service_load PHOTO [--model MODEL] [--items 10000] [--coded-items 100000]
        [--seconds 20] [--overload-seconds 60] [--name NAME]

PHOTO is a JPEG, for example with 400 x 533 pixels. Without a MODEL, the network is the paper's
network at 224 pixels, with 1000 classes and random weights. The features of the indexes are made
up. The load comes from wrk, which must be installed. Other servers are measured in the same run: a
FastAPI route that calls torch, a FastAPI route that calls torch and FAISS, and LitServe if it is
installed (`pip install litserve`). All of them decode with the same function and run on the same
cores as wrk.
"""

from benchmarks.service_load.program import main

__all__ = ["main"]
