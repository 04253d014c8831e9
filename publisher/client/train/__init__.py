"""`publisher train`: supervised fine-tuning of a checkpoint with TRL, as an example to copy from."""
