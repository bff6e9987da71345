"""Concrete cells: equations and closed-form tangent side by side, one module each."""
