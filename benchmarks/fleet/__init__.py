"""A fleet of uneven workers, simulated: distllm's own code decides, and only the servers and the clock are made up."""
