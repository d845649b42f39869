"""How the compact model is trained: generated scenes, episodes, losses and the training loops."""
