"""Item cold start by stages: a model of the old items, then three small sets of events of new ones."""
