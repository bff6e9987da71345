"""What a step is: the contract, the two ways to keep it, and the cells, which meet nowhere."""
