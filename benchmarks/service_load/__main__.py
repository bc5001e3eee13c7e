"""`python -m benchmarks.service_load`."""

from benchmarks.service_load import main

main()
