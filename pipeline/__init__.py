"""Code that the stages share: command line, inputs, manifests, devices, and the loops of training and prediction."""
