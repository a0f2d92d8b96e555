"""The main job from nothing to a result on screen, on a data folder of its own."""
