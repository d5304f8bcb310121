"""Where the tables lie: plans for the ranks that are here, and for clusters that are not."""
