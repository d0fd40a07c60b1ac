"""Where the pieces of a run are done: in this process, on a Ray cluster, or as jobs of Slurm."""
