"""A cell over a sequence: the states, their derivative, and one adjoint step."""
