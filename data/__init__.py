"""Reading, cropping, augmenting and batching. Nothing here depends on a run folder or a stage."""
