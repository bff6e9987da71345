"""What a training loop takes: clipping, initialisation, penalties, tasks."""
