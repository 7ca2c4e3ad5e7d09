"""What the stages share: command line, inputs, what is up to date, devices, the loops of training and prediction."""
