"""The serving twin: the trained model on plain tensors, for TorchScript and AOTInductor."""
