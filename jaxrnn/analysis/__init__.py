"""Questions to a run: what its gradients through time are, and how far they reach."""
