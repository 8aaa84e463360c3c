"""One attention kernel for TPUs, with masks and biases inside."""
