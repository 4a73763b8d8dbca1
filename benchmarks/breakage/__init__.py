"""The parts of the comparison of faults: the pools, what tasks do, what is looked at, the faults by kind."""
