import sys

from pulse_exp.benchmark.command import main

if __name__ == "__main__":
    sys.exit(main())
