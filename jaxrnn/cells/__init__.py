"""What a step is: the contract of a cell, the two ways to keep it, and the cells themselves."""
