"""What the comparison runs in processes of their own, in the peers' environments: nothing here imports crossfarm."""
