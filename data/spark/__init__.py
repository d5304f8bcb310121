"""`prepare` as Spark jobs: the same kernel, over chunks of time that lie on many machines."""
