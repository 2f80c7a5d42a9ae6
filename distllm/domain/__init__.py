"""What distllm is about, without any input or output: states, values, rules, errors."""
