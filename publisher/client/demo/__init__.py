"""`publisher demo`: the product's main job on a real model, start to finish, from what pip can install."""
