"""A cell over a sequence: its states, their derivative, and one step of an adjoint."""
