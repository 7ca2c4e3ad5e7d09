"""Reading, cropping, augmenting and batching: nothing here knows of a run folder or a stage."""
