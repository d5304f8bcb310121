"""What a trained run does inside: gates, activations under masks, attention, experts."""
