"""Speed, as ratios to the bare limit of the same machine in the same run. `make bench` runs it."""
