"""What a log was counted to: the state of its groups, in sorted files, and the kernel that advances it."""
