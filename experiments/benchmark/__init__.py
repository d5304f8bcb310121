"""Methods compared under one leak-free protocol on any prepared log (docs/benchmark.md)."""
