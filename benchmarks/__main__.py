"""`make bench`: the benchmarks that need no data of the user's."""

from benchmarks import demo, service_start

if __name__ == "__main__":
    demo.main()
    service_start.main()
